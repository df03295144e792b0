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

    pipe: a pipeline whose denoiser is a FLUX transformer or a U-Net. Its outputs are bit for bit
        those without recording, and afterwards it is as it was.
    out: path of the run, which is made or added to; or a `Run` that has places for the samples.
    capture: what to keep; latents, x0, norms, timings and the image by default.
    faces: photos of the people whom the images should show, by name or named by their files: what
        `stepscope measure` measures identity against. One is every sample's; where there are more,
        each call's samples are labelled with a name, `recording.label([{"face": NAME}])`.

    Raises UnsupportedPipelineError, here or before a call's first step, for what cannot be recorded
    truthfully, and RunError for a run that the call does not fit. After its first step a call is not
    stopped: samples are written on a thread of their own, and an error of the disk, or another that costs
    the record, is raised where a later call begins, or on leaving. After any exception the hooks are gone
    and the samples finished so far are readable. Warns (StepscopeWarning) where nothing was recorded, and
    where a sample holds numbers that are not finite: the coordinate `not_finite` says which.
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
