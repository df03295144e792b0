"""When an adapter is active: its window in fractions of the run, in steps or in sigma."""

from collections.abc import Sequence
from typing import Literal

from stepscope.hooks.errors import StepscopeError

WindowUnit = Literal["fraction", "step", "sigma"]
Window = tuple[float, float]


def steps_inside(window: Window, unit: WindowUnit, sigmas: Sequence[float]) -> list[int]:
    """The steps, counted from 0, in which a window (start, end) is open.

    sigmas: noise levels of the run's steps. A fraction keeps step i of n if start <= i / n and
    (i + 1) / n <= end, as diffusers' ControlNet pipelines do; `step` if start <= i < end; `sigma` if
    start >= sigma > end.
    """
    (start, end), n = window, len(sigmas)
    if unit == "fraction":
        return [i for i in range(n) if not (i / n < start or (i + 1) / n > end)]
    if unit == "step":
        return [i for i in range(n) if start <= i < end]
    return [i for i, sigma in enumerate(sigmas) if start >= sigma > end]


def fractions(
    window: Window, unit: WindowUnit, sigmas: Sequence[float], first: int = 0
) -> Window | None:
    """The window as diffusers' control_guidance_start and _end; None if no step is inside.

    A run of whole steps is expressed exactly. first: the run's step at which the call begins, which
    counts its steps from there.
    """
    if unit == "fraction" and not first:
        return window
    n = len(sigmas) - first
    inside = [i - first for i in steps_inside(window, unit, sigmas) if i >= first]
    return (inside[0] / n, (inside[-1] + 1) / n) if inside else None


def checked_window(key: str, window: Sequence[float], unit: WindowUnit) -> Window:
    """The window as a pair. Raises StepscopeError, which names the key, for one that cannot be meant."""
    if len(window) != 2:
        raise StepscopeError(f"{key} is a start and an end, got {list(window)}")
    start, end = window
    if unit == "fraction" and not (0 <= start <= 1 and 0 <= end <= 1):
        raise StepscopeError(
            f"{key}={[start, end]} in fractions of the run goes from 0 to 1; steps are "
            f"counted with {key}_unit=step"
        )
    if (start < end) if unit == "sigma" else (start > end):
        raise StepscopeError(
            f"{key}={[start, end]} is empty in {unit}: sigma falls along a run, "
            "steps and fractions rise"
        )
    return start, end
