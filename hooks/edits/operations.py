"""What an edit does to the values of a site: the operations, each a value with its fields."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stepscope.hooks.edits.operation import At, Operation, finite_number, whole_numbers
from stepscope.hooks.errors import EditError
from stepscope.hooks.fingerprint import of_bytes


@dataclass(frozen=True)
class Scale(Operation):
    """Multiply the values by `factor`: 0 is zero ablation, 1 changes no bit."""

    factor: float

    def __post_init__(self) -> None:
        finite_number("Scale", self.factor)

    def __call__(self, values: torch.Tensor, at: At) -> torch.Tensor:
        return values * self.factor if self.factor else torch.zeros_like(values)

    def told(self) -> dict[str, Any]:
        return {"do": "Scale", "factor": float(self.factor)}


@dataclass(frozen=True)
class Mean(Operation):
    """Replace the values by the mean over a run's samples at that site, step and branch (mean ablation).

    path: a run that stores the site's full tensor: `record(pipe, path, Capture("full", sites=...))`.
    """

    path: str | Path

    def __call__(self, values: torch.Tensor, at: At) -> torch.Tensor:
        assert at.donor is not None
        mean = at.donor.mean(at.site, at.step, at.branch).to(values)
        return mean[at.tokens].expand_as(values)

    @property
    def run(self) -> str | None:
        return str(self.path)

    def told(self) -> dict[str, Any]:
        return {"do": "Mean", "run": str(self.path)}


@dataclass(frozen=True)
class Swap(Operation):
    """Replace the values by those of another row of the batch, or of a recorded sample (interchange).

    source: for each edited row, the row of the batch that gives the values (before this edit); or the
        path of a run that stores the site's full tensor.
    sample: of that run; one for all rows, or one for each.
    """

    source: Sequence[int] | str | Path
    sample: int | Sequence[int] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.source, str | Path):
            if self.sample is None:
                raise EditError(
                    f"Swap({str(self.source)!r}) names no sample of the run: "
                    f"Swap({str(self.source)!r}, 0)"
                )
            many = self.sample if isinstance(self.sample, Sequence | np.ndarray) else (self.sample,)
            samples = whole_numbers(f"Swap({str(self.source)!r}, ...)", list(many))
            if not samples:
                raise EditError(f"Swap({str(self.source)!r}, []) names no sample of the run")
            one = many is not self.sample
            object.__setattr__(self, "sample", samples[0] if one else samples)
            return
        object.__setattr__(self, "source", whole_numbers("Swap", list(self.source)))
        if self.sample is not None or not self.source:
            raise EditError(
                f"Swap({self.source}, {self.sample}): name rows of the batch, Swap((1, 0)), or a run "
                "and a sample, Swap('run.zarr', 0)"
            )

    def __call__(self, values: torch.Tensor, at: At) -> torch.Tensor:
        places = [at.chosen.index(row) for row in at.rows]
        if isinstance(self.source, tuple):
            return self._within(at, [self.source[place] for place in places])
        assert at.donor is not None
        found = [at.donor.sample(at.site, self._sample(i), at.step, at.branch) for i in places]
        return torch.stack([whole[at.tokens] for whole in found]).to(values)

    def _within(self, at: At, others: Sequence[int]) -> torch.Tensor:
        for row, other in zip(at.rows, others, strict=True):
            if at.counts[row] != at.counts[other]:
                raise EditError(
                    f"Swap at {at.site}: row {row} has {at.counts[row]} of these tokens and row {other} "
                    f"has {at.counts[other]}: swap the whole stream, or rows whose texts have equal length"
                )
        return at.batch[list(others)][:, at.tokens]

    def _sample(self, place: int) -> int:
        return self.sample if isinstance(self.sample, int) else (self.sample or (0,))[place]

    @property
    def run(self) -> str | None:
        return None if isinstance(self.source, tuple) else str(self.source)

    @property
    def samples(self) -> tuple[int, ...] | None:
        if self.sample is None:
            return None
        return (self.sample,) if isinstance(self.sample, int) else tuple(self.sample)

    def check_rows(self, rows: Sequence[int], batch: int) -> None:
        many = self.source if isinstance(self.source, tuple) else self.sample
        if isinstance(many, tuple) and len(many) != len(rows):
            raise EditError(
                f"{self} names {len(many)} for the {len(rows)} rows {list(rows)} that the edit touches: "
                "name one for each"
            )
        of_batch = self.source if isinstance(self.source, tuple) else ()
        if missing := [row for row in of_batch if not 0 <= row < batch]:
            raise EditError(
                f"{self}: there is no row {missing[0]} in a batch of {batch}; rows 0 to {batch - 1} are"
            )

    def told(self) -> dict[str, Any]:
        if isinstance(self.source, tuple):
            return {"do": "Swap", "source": list(self.source)}
        of = list(self.sample) if isinstance(self.sample, tuple) else self.sample
        return {"do": "Swap", "run": str(self.source), "sample": of}


@dataclass(frozen=True, eq=False)
class Add(Operation):
    """Add a direction to the values (steering).

    direction: (channel,), or (token, channel); an array, or the path of a `.npy`. Its length does not
        matter: it is rescaled to the site's own norm.
    amount: 1 adds to each token a vector with the site's root mean square norm over tokens:
        amount x sqrt(mean_t |h_t|^2), over the edited tokens of each row.
    """

    direction: Any
    amount: float

    def __post_init__(self) -> None:
        finite_number("Add: amount", self.amount)
        given = self.direction
        if isinstance(given, str | Path):
            path = Path(given).expanduser()
            if not path.is_file():
                raise EditError(f"Add: there is no file {str(path)!r}")
            given = np.load(path)
        found = torch.as_tensor(given).detach().float().cpu()
        if found.ndim not in (1, 2):
            raise EditError(
                f"Add: a direction is (channel,) or (token, channel), got {tuple(found.shape)}"
            )
        if not torch.isfinite(found).all() or not found.any():
            raise EditError("Add: the direction has no length: it is all zeros, or not finite")
        object.__setattr__(self, "direction", found)

    def __call__(self, values: torch.Tensor, at: At) -> torch.Tensor:
        unit = self.direction.to(values.device)
        unit = (unit / _norm(unit))[at.tokens] if unit.ndim == 2 else unit / _norm(unit)
        own = _norm(values.float())[:, None, None]
        return (values + self.amount * own * unit).to(values.dtype)

    def check_shape(self, site: str, tokens: int, channels: int) -> None:
        given = tuple(self.direction.shape)
        if given not in ((channels,), (tokens, channels)):
            raise EditError(
                f"Add at {site}: the direction is {given}, and the site holds {tokens} tokens of "
                f"{channels} channels: ({channels},) or ({tokens}, {channels}) fits"
            )

    def told(self) -> dict[str, Any]:
        values = self.direction.numpy()
        return {
            "do": "Add",
            "amount": float(self.amount),
            "direction": {"shape": list(values.shape), "fingerprint": of_bytes(values.tobytes())},
        }


def _norm(values: torch.Tensor) -> torch.Tensor:
    """Root mean square over tokens of the L2 norm over channels: (..., token, channel) to (...)."""
    squares = values.square().sum(-1)
    return (squares.mean(-1) if values.ndim > 1 else squares).sqrt()
