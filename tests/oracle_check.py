"""Every stored number of a run against the oracle's: right, or NaN where nothing was computed."""

from collections.abc import Iterator

import numpy as np
import xarray as xr

from tests.every_pipeline_calls import SEEDS, Call
from tests.oracle import Truth

CLOSE = 1e-5  # float32 sums against float64, relative to the largest number of the variable
ESTIMATE = 1e-4  # x0 divides by a small signal level: two ways to round it
TIMES = ("step_seconds", "stage_seconds")


def check(call: Call, run: xr.Dataset, truth: Truth) -> list[str]:
    """What is wrong in the run, a line each; nothing if all of it is right."""
    return [
        *_numbers(run, _known(call, run, truth.expected)),
        *_samples(call, run),
        *_rest(run, truth.expected),
    ]


def _known(call: Call, run: xr.Dataset, expected: xr.Dataset) -> xr.Dataset:
    """Without the numbers that nothing can tell: which of the given embeddings are padding.

    All of them are NaN then, and the run says that it does not know the text's tokens.
    """
    if not (call.is_flux and "embeds" in call.words and (run["text_tokens"] == -1).all()):
        return expected
    texts = expected["stream"].isin(["text", "padding"])
    prompts = expected["branch"] == "positive"
    found = expected.copy()
    for name, values in expected.data_vars.items():
        if "stream" in values.dims:
            where = texts & prompts if "branch" in values.dims else texts
            found[name] = values.where(~where).transpose(*values.dims)
    return found


def _numbers(run: xr.Dataset, expected: xr.Dataset) -> Iterator[str]:
    for name, wanted in expected.data_vars.items():
        if name not in run:
            yield f"{name} is not stored"
            continue
        for axis in ("branch", "stream", "block", "adapter_block", "injection"):
            if axis in wanted.dims:
                stored = list(run[axis].values)
                if "block" in axis and stored != list(wanted[axis].values):
                    yield f"{axis}s are {stored}, and those that ran are {list(wanted[axis].values)}"
                    return
                left_out = wanted.drop_sel({axis: [v for v in stored if v in wanted[axis]]})
                for value in left_out[axis].values:
                    if np.isfinite(left_out.sel({axis: value})).any():
                        yield f"{name}: {axis} {value} was computed and is not stored"
                wanted = wanted.reindex({axis: stored})
        yield from _array(str(name), run[name], wanted)


def _array(name: str, stored: xr.DataArray, wanted: xr.DataArray) -> Iterator[str]:
    if set(stored.dims) != set(wanted.dims):
        yield f"{name} has axes {stored.dims}, not {wanted.dims}"
        return
    stored = stored.transpose(*wanted.dims)
    if (
        "step" in stored.dims
    ):  # steps that did not run are there, and NaN; their timesteps are known
        ran = wanted.sizes["step"]
        if name != "timestep" and stored.isel(step=slice(ran, None)).notnull().any():
            yield f"{name} has numbers of steps that did not run"
        stored = stored.isel(step=slice(ran))
    if stored.shape != wanted.shape:
        yield f"{name} has shape {stored.shape}, not {wanted.shape}"
        return
    found, right = stored.values, wanted.values
    if name == "image":
        whole = right if right.dtype == np.uint8 else (right * 255).round().astype(np.uint8)
        if (found != whole).any():
            yield f"image differs from the returned one in {(found != whole).mean():.0%} of its numbers"
        return
    for what, places in (
        ("NaN, and computed", np.isnan(found) & ~np.isnan(right)),
        ("stored, and not computed", ~np.isnan(found) & np.isnan(right)),
    ):
        if places.any():
            yield f"{name} is {what}: {_where(wanted, places)}"
    scale = np.nanmax(np.abs(right), initial=0.0)
    wrong = np.abs(found - right) > (ESTIMATE if name == "x0" else CLOSE) * scale
    if wrong.any():
        apart = np.nanmax(np.where(wrong, np.abs(found - right), 0.0))
        yield f"{name} is off by {apart:.3g} of {scale:.3g}: {_where(wanted, wrong)}"


def _where(array: xr.DataArray, places: np.ndarray) -> str:
    """The steps, branches and streams of the places, in words."""
    said = []
    for axis, dim in enumerate(array.dims):
        if dim in ("step", "branch", "stream"):
            seen = np.flatnonzero(places.any(tuple(i for i in range(places.ndim) if i != axis)))
            names = array[dim].values[seen] if dim in array.coords else seen
            said.append(f"{dim} {', '.join(map(str, names))}")
    return "; ".join(said) or f"{places.mean():.0%} of its numbers"


def _samples(call: Call, run: xr.Dataset) -> Iterator[str]:
    """The coordinates of the samples: what the call was given, or that it is not known."""
    nothing, unknown = ["", ""], [-1, -1]
    known = {
        "prompt": nothing if "embeds" in call.words else call.prompts,
        "negative_prompt": call.negatives if "guided" in call.words else nothing,
        "seed": unknown if "alone" in call.words else SEEDS,
        "batch_size": [2, 2],
        "call": [0, 0],
        "steps_run": [run["latents"].notnull().any(("sample", "channel", "y", "x")).sum().item()]
        * 2,
    }
    if not run["done"].values.all():
        yield "not every sample is done"
    for name, wanted in known.items():
        if name not in run:
            yield f"{name} is not stored"
            continue
        stored = run[name].values.tolist()
        if stored != wanted and not ("embeds" in call.words and stored == nothing):
            yield f"{name} is {stored}, not {wanted}"


def _rest(run: xr.Dataset, expected: xr.Dataset) -> Iterator[str]:
    for name in TIMES:
        if (run[name].values < 0).any():
            yield f"{name} is negative"
    unknown = set(run.data_vars) - set(expected.data_vars) - {*TIMES, "done"}
    if unknown:
        yield f"nothing is known of {', '.join(sorted(map(str, unknown)))}"
