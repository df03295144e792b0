"""The public verb: `with record(pipe, "run.zarr"): pipe(...)`."""

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from stepscope.hooks.capture import Capture
from stepscope.hooks.errors import StepscopeWarning
from stepscope.hooks.people import Faces, photos_of
from stepscope.hooks.recording import Recording
from stepscope.hooks.sink import storing
from stepscope.hooks.store import Run
from stepscope.hooks.support import refuse


@contextmanager
def record(
    pipe: Any, out: str | Path | Run, capture: Capture | None = None, *, faces: Faces = ()
) -> Iterator[Recording]:
    """Record every call of a diffusers pipeline into a Zarr run, for as long as the `with` lasts.

    pipe: a pipeline whose denoiser is a FLUX transformer or a U-Net. Recording does not change
        a bit of its outputs, and afterwards the pipeline is restored.
    out: path of the run, which is made or added to; or a `Run` that has places for the samples.
    capture: what to keep; latents, x0, norms, timings and the image by default.
    faces: photos of the people that the images should show, as {name: photo} or a list of files. They
        are the references for identity in `stepscope measure`. One photo applies to every sample; with
        several, label each call's samples with a name, `recording.label([{"face": NAME}])`.

    Raises UnsupportedPipelineError, here or before a call's first step, for a pipeline that cannot be
    recorded correctly, and RunError if the call does not fit the run. After its first step a call is not
    stopped: another thread writes the samples, and a later error (such as a full disk) is raised when the
    next call begins or when the `with` ends. After any exception the hooks are removed and the finished
    samples are readable. Warns (StepscopeWarning) if nothing was recorded, and if a sample holds NaN or
    infinite numbers: the coordinate `not_finite` names the variables.
    """
    refuse(pipe)
    capture, photos = capture or Capture(), photos_of(faces)
    with storing(out) as sink, ExitStack() as hooks:
        recording = Recording(pipe, sink, capture, photos)
        recording.attach(hooks)
        yield recording
        if not recording.calls:
            warnings.warn(
                f"nothing was recorded: {type(pipe).__name__} was not called within the `with`",
                StepscopeWarning,
                stacklevel=3,
            )
