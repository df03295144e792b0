"""The edits of a run, as a configuration says them; what can never fit is refused before models load."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from pydantic import ConfigDict

from stepscope.hooks.edits import Add, Edit, Mean, Operation, Scale, Swap
from stepscope.hooks.errors import EditError, nearest

Do = Literal["zero", "scale", "mean", "swap", "add"]

ASKS: dict[Do, tuple[tuple[str, ...], ...]] = {
    "zero": ((),),
    "scale": (("factor",),),
    "mean": (("run",),),
    "swap": (("source",), ("run", "sample")),
    "add": (("direction", "amount"),),
}
"""Of each word for what is done, the settings that it takes: all of one of these."""

_ONLY: ConfigDict = {"extra": "forbid"}
_SETTINGS = ("factor", "run", "sample", "source", "direction", "amount")


@dataclass(frozen=True)
class Wanted:
    """One entry of `edits`: where and when an edit is made, and what is done.

    sites, steps, sigmas, branch, rows, tokens: as `hooks.Edit` has them, tokens in a word. do: `zero`;
    `scale` by `factor`; `mean` over the samples of `run`; `swap` with the rows `source` of the same batch,
    or with a `sample` of `run`; `add` an `amount` of the `direction` in a `.npy`.
    """

    sites: tuple[str, ...]
    do: str
    factor: float | None = None
    run: str | None = None
    sample: int | None = None
    source: tuple[int, ...] | None = None
    direction: str | None = None
    amount: float | None = None
    steps: tuple[int, int | None] | None = None
    sigmas: tuple[float, float] | None = None
    branch: str | None = None
    rows: tuple[int, ...] | None = None
    tokens: str | None = None

    __pydantic_config__ = _ONLY

    def __post_init__(self) -> None:
        if self.do not in get_args(Do):
            raise EditError(f"edits: no do={self.do!r}; {nearest(self.do, get_args(Do))}")
        given = tuple(name for name in _SETTINGS if getattr(self, name) is not None)
        known: tuple[tuple[str, ...], ...] = ASKS[self.do]  # pyright: ignore[reportArgumentType]
        if not any(sorted(given) == sorted(each) for each in known):
            asked = " or ".join(" and ".join(each) if each else "nothing more" for each in known)
            raise EditError(
                f"edits: do={self.do} asks for {asked}, and {' and '.join(given) or 'nothing'} is given"
            )
        self.edit()

    def edit(self) -> Edit:
        """The edit as a value. Raises EditError for one that can never fit."""
        return Edit(
            self.sites,
            self._operation(),
            steps=self.steps,
            sigmas=self.sigmas,
            branch=self.branch,
            rows=self.rows,
            tokens=self.tokens,
        )

    def _operation(self) -> Operation:
        if self.do == "zero":
            return Scale(0.0)
        if self.factor is not None:
            return Scale(self.factor)
        if self.source is not None:
            return Swap(self.source)
        if self.run is not None:
            return Mean(self.run) if self.sample is None else Swap(self.run, self.sample)
        assert self.amount is not None
        return Add(self.direction, self.amount)

    def told(self) -> dict[str, Any]:
        """What was said, without what was not."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def listed(values: Any) -> Any:
    """`edits` as a list of entries, whose sites are a list; what is neither is left for the schema."""
    entries = values if isinstance(values, list) else [values]
    return [
        {**one, "sites": [one["sites"]]} if isinstance(one, dict) and _is_text(one) else one
        for one in entries
    ]


def _is_text(entry: dict[str, Any]) -> bool:
    return isinstance(entry.get("sites"), str)
