"""What a run's variables can be shown as, and the line of Python that selects one of their values."""

import json
from collections.abc import Mapping
from typing import Any, Literal

import xarray as xr

from stepscope.analysis.explore.source import GROUP, Contents, Source, plain

Kind = Literal["map", "curve", "tokens"]

PLACES = {"token_y", "token_x"}
NO_LINES = PLACES | {"row", "column", "rgb", "channel", "y", "x", "keypoint", "xy"}
"""Axes of pictures and of tensors: their variables are no curves."""
MOST_LINES = 64

SITES = {
    "attention_norm": "{block}.attention.{stream}",
    "residual_norm": "{block}.residual.{stream}",
    "residual_norm_without_massive": "{block}.residual.{stream}",
    "massive_share": "{block}.residual.{stream}",
    "contribution": "{injection}",
    "adapter_attention_norm": "{adapter_block}.attention.{stream} of the adapter",
    "attention_token_norm": "{block}.attention.image",
    "residual_token_norm": "{block}.residual.image",
}
"""The place in the denoiser at which a variable is read, as `hooks.sites` names it."""


def block_axis(values: xr.DataArray) -> str | None:
    """The variable's axis of blocks, or of other places in the denoiser; None without."""
    dims = map(str, values.dims)
    return next((d for d in dims if d in ("block", "injection") or d.endswith("_block")), None)


def kind_of(values: xr.DataArray) -> Kind | None:
    """How a variable is shown: a map of blocks by steps, curves along the steps, or over the picture."""
    dims = {str(d) for d in values.dims}
    if not {"sample", "step"} <= dims or values.dtype.kind not in "fiu":
        return None
    if dims >= PLACES:
        return "tokens" if block_axis(values) else None
    if block_axis(values):
        return "map"
    lines = 1
    for name in dims - {"sample", "step"}:
        lines *= values.sizes[name]
    flags = "flag_values" in values.attrs
    return None if flags or dims & NO_LINES or lines > MOST_LINES else "curve"


def variables(contents: Contents) -> dict[str, dict[str, Any]]:
    """Every variable that can be shown, with its axes after `sample`, its words, and its templates.

    line: Python that selects one value, with each axis's value in braces, as `selection` fills it.
    site: the name of the place that was read, likewise. group: where the variable lies in the store.
    """
    found = {}
    for group, name in ((contents.recorded, ""), (contents.measured, GROUP)):
        for key, values in group.data_vars.items():
            kind = kind_of(values)
            if kind is None or str(key) in found:
                continue
            dims = [str(d) for d in values.dims if d != "sample"]
            found[str(key)] = {
                "kind": kind,
                "dims": dims,
                "shape": [values.sizes[d] for d in dims],
                "block": block_axis(values),
                "group": name,
                "units": str(values.attrs.get("units", "1")),
                "description": str(
                    values.attrs.get("description") or values.attrs.get("long_name", "")
                ),
                "line": line(group, str(key)),
                "site": _site(str(key), dims),
            }
    return found


WHERE = ("block", "adapter_block", "stream")


def _site(name: str, dims: list[str]) -> str:
    if name == "contribution" and "block" in dims:  # before schema version 4
        return "{block}.residual.image"
    return SITES.get(name, ".".join(f"{{{d}}}" for d in dims if d in WHERE))


def line(group: xr.Dataset, name: str) -> str:
    """The template of the Python that selects one value: axes with words by those, others by number."""
    values = group[name]
    dims = [str(d) for d in values.dims]
    named = [d for d in dims if d in group.indexes and group[d].dtype.kind not in "iufb"]
    numbered = [d for d in dims if d not in named]
    start = f"run.{name}" if name.isidentifier() else f"run[{json.dumps(name)}]"
    words = ", ".join(f"{d}={{{d}}}" for d in reversed(named))
    numbers = ", ".join(f"{d}={{{d}}}" for d in numbered)
    return start + (f".sel({words})" if words else "") + f".isel({numbers})"


def selection(template: str, places: Mapping[str, Any]) -> str:
    """A template with the values of its axes: words in quotes, numbers as they are."""
    text = template
    for name, value in places.items():
        text = text.replace(f"{{{name}}}", json.dumps(value, ensure_ascii=False))
    return text


def coordinates(contents: Contents, shown: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The values of every axis of the variables that are shown; an axis without any is counted."""
    found: dict[str, list[Any]] = {}
    for name, about in shown.items():
        group = contents.holding(name)
        for axis in about["dims"]:
            values = (
                group[axis].values.tolist() if axis in group.coords else range(group.sizes[axis])
            )
            found.setdefault(axis, [plain(value) for value in values])
    return found


def about(source: Source) -> dict[str, Any]:
    """What the page says of a run before a sample is chosen: no value of a sample is read for it."""
    contents = source.contents()
    recorded, shown = contents.recorded, variables(contents)
    sigma = recorded["sigma"].values.tolist() if "sigma" in recorded else []
    finite = [plain(value) for value in sigma]
    return {
        "name": source.name,
        "path": source.text,
        "model": _model(recorded.attrs),
        "created": str(recorded.attrs.get("created", ""))[:10],
        "samples": recorded.sizes.get("sample", 0),
        "steps": recorded.sizes.get("step", 0),
        "sigma": finite if finite and None not in finite else None,
        "variables": shown,
        "coordinates": coordinates(contents, shown),
        "opening": {"": source.opening(), GROUP: source.opening(GROUP)},
        "measure": source.command(),
    }


def _model(attributes: Mapping[str, Any]) -> str:
    """The backbone and adapter, or the pipeline's class and where it was loaded from."""
    backbone = attributes.get("backbone")
    if isinstance(backbone, str):
        adapter = attributes.get("adapter")
        return f"{backbone}, adapter {adapter}" if adapter and adapter != "none" else backbone
    words = [attributes.get("pipeline"), attributes.get("loaded_from")]
    return ", ".join(str(word) for word in words if word) or "pipeline not known"
