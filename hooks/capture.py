"""What to record, as a value."""

from dataclasses import dataclass
from typing import Literal, get_args

from stepscope.hooks.errors import StepscopeError, nearest

Level = Literal["norms", "tokens", "full"]
MOST_MASSIVE = 64
"""Published models have one to a handful; past this a norm without them would mean something else."""


@dataclass(frozen=True)
class Capture:
    """Choose what a run stores; it always stores latents, x0 estimates, timings and the image.

    level: `norms` keeps one number per block, stream and step; `tokens` also keeps a map over the
        image tokens; `full` also keeps the full tensors of `sites`.
    velocity: keep the denoiser's raw output of every branch.
    sites: shell-style patterns of site names (`double.*.attention.image`), for level `full`.
    massive: number of channels with the most energy that `residual_norm_without_massive` leaves out;
        0 to 64.
    """

    level: Level = "norms"
    velocity: bool = False
    sites: tuple[str, ...] = ()
    massive: int = 2

    def __post_init__(self) -> None:
        object.__setattr__(self, "sites", tuple(self.sites))
        if self.level not in get_args(Level):
            raise StepscopeError(f"no level {self.level!r}; {nearest(self.level, get_args(Level))}")
        if (self.level == "full") != bool(self.sites):
            raise StepscopeError(
                "record.sites goes with level 'full', and 'full' needs it: "
                f"got level {self.level!r} with sites {list(self.sites)}"
            )
        if not 0 <= self.massive <= MOST_MASSIVE:
            raise StepscopeError(
                f"record.massive={self.massive}: from 0 to {MOST_MASSIVE} channels can be left out"
            )
