"""What of each sample is there to be measured: steps that ran, and numbers that are finite.

A run says of each sample in its coordinate `not_finite` which variables hold what is no finite number.
"""

import numpy as np
import xarray as xr


def not_finite(run: xr.Dataset) -> np.ndarray:
    """The coordinate (sample,) as texts; empty where all is finite, and of runs that lack it.

    Such runs are older: a call with a number that is not finite was not recorded then.
    """
    texts = run["not_finite"].values if "not_finite" in run.coords else [""] * run.sizes["sample"]
    return np.array([str(text) for text in texts], object)


def steps_run(run: xr.Dataset) -> np.ndarray:
    """Number of steps (sample,) that ran; all steps where it is unknown."""
    ran = run["steps_run"].values
    return np.where(ran < 0, run.sizes["step"], ran)


def steps_there(run: xr.Dataset) -> np.ndarray:
    """Steps (sample, step) that ran and whose x0 is finite. Only samples that are not finite are read."""
    there = np.arange(run.sizes["step"]) < steps_run(run)[:, None]
    for i in np.flatnonzero(not_finite(run) != "") if "x0" in run else ():
        there[i] &= np.isfinite(run["x0"][int(i)].values).all((1, 2, 3))
    return there


def images_there(run: xr.Dataset) -> np.ndarray:
    """Samples (sample,) whose final image is made of finite numbers."""
    lost = {"image", "final_latents"}
    return np.array([not lost & {*text.split(", ")} for text in not_finite(run)], bool)


def frames_there(decoded: np.ndarray) -> np.ndarray:
    """Steps (sample, step) of which there is an image, of images that are black where there is none."""
    return np.asarray(decoded.any((2, 3, 4)))
