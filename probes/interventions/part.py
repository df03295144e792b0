"""A part of a causal study: one kind of change, in every window of steps and every group of blocks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pydantic import ConfigDict

from stepscope.hooks.edits import Edit, Scale
from stepscope.hooks.edits.sites import ADAPTER, Sites
from stepscope.hooks.errors import EditError, StepscopeError, nearest
from stepscope.probes.interventions.windows import SHUFFLED, windows

Do = Literal["zero", "swap", "face", "prompt", "scale", "noise", "backbone", "steer"]
Donor = Literal["other", "same", "off", "random"]
Along = Literal["adapter", "person", "other"]
Learned = Literal["there"]
BRANCHES = ("prompt", "scale", "noise", "backbone")
"""What a sample can be continued with besides another face; each asks for `to`."""

WANTED: dict[str, Any] = {
    "prompt": str, "backbone": str, "scale": int | float, "noise": int, "steer": int | float,
}  # fmt: skip
SAID = {
    "prompt": "a text", "backbone": "a name of conf/backbone", "scale": "a number", "noise": "a seed",
    "steer": "a number",
}  # fmt: skip

FACE_WINDOWS, FACE_DONORS = ("from", "shuffled"), ("other", "same", "random")
"""In which steps another face can be given, and whose."""

CLAMPS = ("only", "from", "all")
"""Windows of steps that begin at the step that they are named after."""

# a key that is none of ours is a mistake
_ONLY: ConfigDict = {"extra": "forbid"}


@dataclass(frozen=True)
class Part:
    """One kind of change, made in each window of steps and at each group of blocks.

    name: as figures and tables call it. do: at sites, `zero`, `swap` with a donor's values, or `steer` with
    `to` times a learned direction; without sites, what the run is continued with from the window on: the
    donor's `face` (of which `random` is as far away as `other`, in a random direction; in
    `shuffled` steps the own face is given between them), another `prompt`, adapter `scale`, `noise` (x0 as
    estimated, with the noise of another seed) or `backbone`, each in `to`. sites: patterns as `edit` has
    them, `*.adapter`. donor: `other`, the run's next person; `same`, another photo of the person; `off`,
    the sample without the adapter; `random`, as far from it as `other` is, in a random direction.
    steps, blocks: `only` each one, the `first` so many, `from` each on, `all_but` each, `all`, or
    `shuffled`: as many as `first` has, at random places, others for each sample. every, together: how many
    steps, and blocks, are one bin; None for the study's. faces: only of the first so many faces of the run;
    None for all. clamped: also keep x0 of the window's first step.

    along: of `steer`, which difference of means, see `directions.py`. That of the `adapter` or the `person`
    is added to the sample without the adapter, or with `to` below 0 taken from the sample with it; that to
    the `other` person is added to the sample. donor: of `steer`, `other` for the next person's in place of
    the person's, or `random` for the same in a random basis. learned: `there`, on the study's other run.
    pooled: one mean of all regions.

    Raises StepscopeError for a part that means nothing.
    """

    name: str
    do: str
    sites: tuple[str, ...] = ()
    donor: str | None = None
    steps: str = "only"
    blocks: str = "all"
    every: int | None = None
    together: int | None = None
    faces: int | None = None
    clamped: bool = False
    to: str | float | int | None = None
    along: str | None = None
    learned: str | None = None
    pooled: bool | None = None

    __pydantic_config__ = _ONLY

    def __post_init__(self) -> None:
        if self.do not in get_args(Do):
            raise self._wrong(f"no do={self.do!r}; {nearest(self.do, get_args(Do))}")
        if self.donor is not None and self.donor not in get_args(Donor):
            raise self._wrong(f"no donor={self.donor!r}; {nearest(self.donor, get_args(Donor))}")
        asked = {
            "a donor": (self.donor, self.do in ("swap", "face") or self._may_have_donor),
            "sites": (self.sites or None, not self.continues),
            "to=...": (self.to, self.do in (*BRANCHES, "steer")),
            "along=...": (self.along, self.do == "steer"),
        }
        for what, (given, needed) in asked.items():
            if (given is not None) != needed:
                raise self._wrong(f"do={self.do} {'asks for' if needed else 'takes no'} {what}")
        for word in (self.steps, self.blocks):
            list(windows(word, 1))
        allowed = FACE_WINDOWS if self.do == "face" else ("from",)
        if self.continues and (self.steps not in allowed or self.blocks != "all"):
            raise self._wrong(
                f"do={self.do} goes on to the end: steps={' or '.join(allowed)}, blocks=all"
            )
        if self.do == "face" and self.donor not in FACE_DONORS:
            raise self._wrong(f"do=face takes donor={', '.join(FACE_DONORS)}")
        if self.clamped and self.steps not in CLAMPS:
            raise self._wrong(
                f"clamped reads x0 of the step that a window is named after: steps={' or '.join(CLAMPS)}"
            )
        if self.do == "steer":
            self._check_steered()
        elif self.learned is not None or self.pooled is not None:
            raise self._wrong(f"do={self.do} takes no learned=... and no pooled=...")
        if not isinstance(self.to, WANTED.get(self.do, object)):
            raise self._wrong(f"do={self.do} to={self.to!r}: {SAID[self.do]}")

    @property
    def continues(self) -> bool:
        """Whether it changes what the run is continued with, and no values at sites."""
        return self.do in ("face", *BRANCHES)

    @property
    def _may_have_donor(self) -> bool:
        return self.do == "steer" and self.donor is not None

    def _check_steered(self) -> None:
        for word, kind in (("along", Along), ("learned", Learned)):
            given = getattr(self, word)
            if given is not None and given not in get_args(kind):
                raise self._wrong(f"no {word}={given!r}; {nearest(str(given), get_args(kind))}")
        donors = ("other", "random") if self.along == "person" else ("random",)
        if self.donor is not None and self.donor not in donors:
            raise self._wrong(f"do=steer along={self.along} takes no donor={self.donor}")

    def _wrong(self, why: str) -> StepscopeError:
        return StepscopeError(f"part {self.name}: {why}")

    @property
    def shuffled(self) -> bool:
        """Whether each sample has other steps or blocks."""
        return SHUFFLED in (self.steps, self.blocks)

    def interventions(
        self, sites: Sites, steps: int, every: int = 1, together: int = 1, seed: int = 0
    ) -> Iterator["Intervention"]:
        """Every intervention of the part on a pipeline with these sites, in a run of so many steps.

        every, together: the study's bins. seed: of the places that are `shuffled`. Raises EditError for a
        pattern that matches no site.
        """
        spans = [*windows(self.steps, steps, self.every or every, seed)]
        if self.continues:
            for at, span in spans:
                yield Intervention(self, at, -1, "", span, ())
            return
        chosen = sites.chosen(Edit(self.sites, Scale(0.0)))
        blocks = in_order(chosen)
        groups = [*windows(self.blocks, len(blocks), self.together or together, seed)]
        for at, span in spans:
            for place, group in groups:
                names = {blocks[i] for i in group}
                held = tuple(site for site in chosen if block_of(site) in names)
                first = "" if self.blocks == "all" else blocks[place]
                yield Intervention(self, at, place, first, span, held)


@dataclass(frozen=True)
class Intervention:
    """One change to the continuation of a sample.

    at, place: what the window of steps, and the group of blocks, is named after (`windows.Window.at`);
    block: that block's name, empty where all are touched. steps, sites: what is touched.
    """

    part: Part
    at: int
    place: int
    block: str
    steps: tuple[int, ...]
    sites: tuple[str, ...]

    @property
    def start(self) -> int:
        """The first step that is computed anew."""
        return min(self.steps)

    @property
    def backbone(self) -> str | None:
        """The name of the backbone that continues the run, None for its own."""
        return str(self.part.to) if self.part.do == "backbone" else None

    @property
    def without(self) -> bool:
        """Whether the sample is steered from its run without the adapter."""
        steered = self.part.do == "steer" and self.part.along != "other"
        return steered and float(self.part.to or 0) >= 0

    @property
    def switches(self) -> bool:
        """Whether the face that the adapter is given changes more than once."""
        return self.part.do == "face" and self.part.steps == SHUFFLED

    @property
    def within(self) -> bool:
        """Whether it touches values within a block, and not only between two."""
        return any(".attention." in site for site in self.sites)

    @property
    def change(self) -> tuple[Any, ...]:
        """What is changed, and not what it is called: equal for interventions that are one computation.

        The first of two groups of blocks is both `only` the first one and `all_but` the other.
        """
        one = self.part
        what = (one.do, one.donor, one.to, one.along, one.learned, one.pooled)
        return (*what, self.switches, self.steps, self.sites)

    @property
    def donors(self) -> tuple[str, ...]:
        """Whose values are needed in the same batch."""
        if self.part.do != "swap":
            return ()
        return ("other",) if self.part.donor == "random" else (str(self.part.donor),)


def block_of(site: str) -> str:
    """`double.07` of `double.07.attention.image` or of `double.07.adapter`."""
    return site.rsplit(".", 1 if site.endswith(f".{ADAPTER}") else 2)[0]


def in_order(sites: Sequence[str]) -> list[str]:
    """The blocks of sites, each once, in order of execution: double-stream blocks before single ones."""
    return list(dict.fromkeys(map(block_of, sites)))


def check_names(parts: Sequence[Part]) -> None:
    """Raise EditError for a study without parts, or with two of one name."""
    names = [part.name for part in parts]
    if not names:
        raise EditError("a study has parts, and none is named")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise EditError(f"two parts are called {twice!r}")
