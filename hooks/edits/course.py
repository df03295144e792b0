"""The course of a call: the steps that it is about to run, and which of them each edit's window holds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from stepscope.hooks.edits.value import Edit
from stepscope.hooks.errors import EditError
from stepscope.hooks.estimate import levels
from stepscope.hooks.families import Family
from stepscope.hooks.families.arguments import argument


@dataclass(frozen=True)
class Course:
    """The steps of one call: their timesteps and noise levels, as the scheduler has them."""

    timesteps: tuple[float, ...]
    sigmas: tuple[float, ...]

    @classmethod
    def of(
        cls, pipe: Any, family: Family, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> "Course":
        """Known when the first pass of the denoiser begins, with these arguments.

        A call may begin behind the first timestep (image to image) and end before the last.
        """
        scheduler = pipe.scheduler
        every = torch.as_tensor(scheduler.timesteps).float().cpu()
        begin = getattr(scheduler, "begin_index", None)
        if begin is None:
            begin = int((every - _given(scheduler, family, args, kwargs)).abs().argmin())
        steps = getattr(pipe, "num_timesteps", None) or len(every) - begin
        places = range(begin, min(begin + steps, len(every)))
        timesteps = every[list(places)]
        level = levels(scheduler, list(places), timesteps)
        return cls(tuple(timesteps.tolist()), tuple(level.sigma.tolist()))

    def inside(self, edit: Edit, which: str) -> frozenset[int]:
        """The steps in an edit's window. Raises EditError for a window outside of the call.

        which: the edit's name in messages.
        """
        count = len(self.sigmas)
        if edit.steps is not None:
            start, end = edit.steps
            if (start or 0) >= count or (end or 0) > count:
                raise EditError(
                    f"{which}: steps={edit.steps}, and the call runs {count} steps, 0 to {count - 1}: "
                    f"({min(start or 0, count - 1)}, {count}) ends with them"
                )
        found = frozenset(i for i, sigma in enumerate(self.sigmas) if edit.inside(i, sigma))
        if not found:
            shown = ", ".join(f"{s:.4g}" for s in self.sigmas[:8])
            more = ", …" if count > 8 else ""
            raise EditError(
                f"{which}: no step of the call is in sigmas={edit.sigmas}; its {count} steps begin at "
                f"sigma {shown}{more}"
            )
        return found


def _given(scheduler: Any, family: Family, args: Sequence[Any], kwargs: Mapping[str, Any]) -> float:
    """The timestep that the denoiser is given, as the scheduler has it."""
    timestep = argument(tuple(args), kwargs, 1, "timestep")
    given = float(torch.as_tensor(timestep).float().flatten()[0])
    if family.thousandths:
        return given * float(scheduler.config["num_train_timesteps"])
    return given
