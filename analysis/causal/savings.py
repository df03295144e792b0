"""Seconds saved by adapter windows, and the similarity that they cost, from whole runs of each window."""

from typing import NamedTuple

import numpy as np
import xarray as xr

from stepscope.analysis.calls import average, saved, seconds_an_image
from stepscope.analysis.evidence import Evidence
from stepscope.analysis.lookup import MissingEvidenceError, measured, setting

EXPERIMENT = "adapter_window"


class Saving(NamedTuple):
    """A window against the whole run with the adapter, same backbone, faces, prompts and noise.

    end: the adapter is on in the steps before. steps: of the run. seconds: saved an image; lost: fall of
    the cosine; each `mean`, `low`, `high`.
    """

    end: int
    steps: int
    seconds: xr.Dataset
    lost: xr.Dataset


class Savings(NamedTuple):
    """The windows of one backbone, from the longest on. whole: seconds an image of the whole run.

    adapter: seconds an image that the adapter's network takes in a step.
    """

    windows: list[Saving]
    whole: float
    adapter: float

    def expected(self, window: Saving) -> float:
        """Seconds an image that the adapter's network took in the steps that a window leaves out."""
        return (window.steps - window.end) * self.adapter


def savings(evidence: Evidence, backbone: str) -> Savings:
    """What each window of first steps saves and costs.

    Raises MissingEvidenceError where no run of all steps, or no other window, was made.
    """
    runs = evidence.some(EXPERIMENT, backbone=backbone)
    first = {end: run for run in runs for start, end in [_window(run)] if start == 0}
    steps = int(setting(runs[0], "steps")) if runs else 0
    if steps not in first or len(first) < 2:
        raise MissingEvidenceError(
            f"no windows of first steps of {backbone} beside its whole run, adapter.window=[0,{steps}]"
        )
    whole = first.pop(steps)
    found = [
        Saving(
            end,
            steps,
            saved(seconds_an_image(whole), seconds_an_image(run), level=evidence.level),
            _lost(evidence, whole, run),
        )
        for end, run in sorted(first.items(), reverse=True)
    ]
    parts = measured(whole, "latency_seconds")
    network = parts.sel(part="adapter").values / parts["batch_size"].values / steps
    seconds = float(average(seconds_an_image(whole))["mean"])
    return Savings(found, seconds, float(np.median(network)))


def fastest(some: Savings, margin: float) -> Saving | None:
    """The window that saves most among those whose loss is surely below a margin; None without one."""
    kept = [one for one in some.windows if float(one.lost["high"]) <= margin]
    return max(kept, key=lambda one: float(one.seconds["mean"]), default=None)


def _window(run: xr.Dataset) -> tuple[int, int]:
    start, end = setting(run, "adapter.window")
    return int(start), int(end)


def _lost(evidence: Evidence, whole: xr.Dataset, run: xr.Dataset) -> xr.Dataset:
    """Fall of the cosine; an image without a face counts with that of two strangers."""
    stranger = evidence.margins.lost_face if evidence.margins is not None else 0.0
    ends = [evidence.endpoint(one).fillna(stranger) for one in (run, whole)]
    return evidence.effect(*ends).rename(effect="mean")
