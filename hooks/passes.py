"""A pass outside of any call is refused, and a call that we ended by an error is undone."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from stepscope.hooks.clock import is_called
from stepscope.hooks.errors import UnsupportedPipelineError


def check_called(pipe: Any, denoiser: nn.Module, what: str = "recording") -> None:
    """Raise UnsupportedPipelineError where the denoiser runs outside of a call of a watched pipeline.

    what: names the observer in the message, `recording` or `edit`.
    """
    if not is_called(denoiser):
        done = {"recording": ("recorded", "record"), "edit": ("edited", "edit")}[what]
        raise UnsupportedPipelineError(
            f"the {type(denoiser).__name__} of this {what} was run outside of a call of the {done[0]} "
            f"{type(pipe).__name__}, where steps cannot be counted: call this pipeline, or {done[1]} "
            "the pipeline that you call"
        )


def undo(pipe: Any, denoiser: Any, processors: Mapping[str, Any] | None) -> None:
    """Put back what a call that we ended by an error left half done: its attention processors (PAG), and
    models that it moved to the device.

    processors: as they were when the call began; None where it was ended before that.
    """
    if processors is None:
        return
    if dict(getattr(denoiser, "attn_processors", {})) != processors:
        denoiser.set_attn_processor(dict(processors))
    if hasattr(pipe, "maybe_free_model_hooks"):
        pipe.maybe_free_model_hooks()
