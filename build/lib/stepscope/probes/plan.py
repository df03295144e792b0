"""What a run will cost, from configurations alone: nothing is loaded, nothing is run."""

import shutil
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, FluxControlNetModel, FluxTransformer2DModel

from stepscope.hooks.errors import StepscopeError
from stepscope.hooks.families import blocks_of
from stepscope.hooks.layout import Layout, layout
from stepscope.hooks.sites import select
from stepscope.hooks.vocabulary import BRANCHES
from stepscope.hooks.writer import WAITING
from stepscope.probes.face_variables import FACE_VARIABLES, SHAPES
from stepscope.probes.infusenet import adapter_folder
from stepscope.probes.study import Study
from stepscope.probes.weights import explained, folder


class DiskError(StepscopeError):
    """The run does not fit on the disk."""


def outline(study: Study) -> Layout:
    """The layout of the study's run, from configurations alone: no weights are downloaded.

    Raises WeightsError if one is not to be had.
    """
    what = f"backbone {study.backbone.name}"
    path = folder(study.backbone.path, what, ["*.json", "**/*.json"])
    with explained(study.backbone.path, what):
        transformer = _meta(FluxTransformer2DModel, path / "transformer")
        vae: Any = AutoencoderKL.load_config(path / "vae")
    adapter_blocks = []
    if study.adapter is not None:
        with explained(study.adapter.path, "adapter"):
            adapter = adapter_folder(study.adapter, settings_only=True)
            network = _meta(FluxControlNetModel, adapter / "InfuseNetModel")
        adapter_blocks = blocks_of(network)
    y, x = latent_sides(study, len(vae["block_out_channels"]))
    tokens = {"image": (y // 2) * (x // 2), "text": study.max_sequence_length}
    blocks = blocks_of(transformer)
    found = layout(
        blocks,
        adapter_blocks,
        study.capture,
        streams=("image", "text", "padding") + (("identity",) if adapter_blocks else ()),
        steps=study.steps,
        branches=BRANCHES[: study.branches],
        latent=(transformer.config.in_channels // 4, y, x),
        image=tuple(side * 2 ** (len(vae["block_out_channels"]) - 1) for side in (y, x)),
        grid=(y // 2, x // 2),
        full={
            site: (tokens[site.rsplit(".", 1)[1]], transformer.inner_dim)
            for site in select(study.capture.sites, blocks)
        },
    )
    if study.adapter is None:  # nothing was conditioned on a face
        return found
    extras = {name: (declared, SHAPES[name]) for name, declared in FACE_VARIABLES.items()}
    return replace(found, variables=found.variables | extras)


def _meta(kind: Any, path: Path) -> Any:
    """A network of that class without weights."""
    with torch.device("meta"):
        return kind.from_config(kind.load_config(path))


def latent_sides(study: Study, vae_levels: int) -> tuple[int, int]:
    """(y, x) of the unpacked latents: FLUX rounds down to whole 2 x 2 patches."""
    factor = 2 ** (vae_levels - 1)
    y, x = (2 * (side // (2 * factor)) for side in (study.height, study.width))
    if not y or not x:
        raise StepscopeError(
            f"height={study.height}, width={study.width}: a token is {2 * factor} x {2 * factor} pixels"
        )
    return y, x


def latent_shape(found: Layout) -> tuple[int, int, int]:
    """(channel, y, x) of a layout's latents."""
    channel, y, x = found.variables["final_latents"][1]
    return channel, y, x


def describe(study: Study, found: Layout, samples: int, left: int, out: Path) -> str:
    """The plan as text: cells, steps, bytes of each variable, total and free disk."""
    sizes = found.bytes_per_sample()
    adapter = study.adapter.name if study.adapter is not None else "no adapter"
    lines = [
        f"{study.backbone.name}, {adapter}: {samples} samples ({left} to make), {study.steps} steps, "
        f"{study.height} x {study.width}, {study.branches} branch(es), batches of {study.batch_size}",
        f"into {out}",
    ]
    for name, (declared, shape) in found.variables.items():
        if name in sizes:
            dims = " x ".join(f"{d} {n}" for d, n in zip(declared.dims[1:], shape, strict=True))
            lines.append(f"  {name:<26}{_bytes(sizes[name] * samples):>10}   {dims}")
    needed = sum(sizes.values()) * left
    lines.append(
        f"  {'to write, uncompressed':<26}{_bytes(needed):>10}   free: {_bytes(_free(out))}"
    )
    whole = sum(
        prod(shape[1:]) * np.dtype(declared.dtype).itemsize
        for name, (declared, shape) in found.variables.items()
        if name in study.capture.sites or "." in name
    )
    if whole:
        waiting = whole * study.batch_size * (WAITING + 1)
        lines.append(f"memory for whole tensors: {_bytes(waiting)}, of {WAITING + 1} steps at most")
    return "\n".join(lines)


def refuse_too_large(found: Layout, left: int, out: Path) -> None:
    """Raise DiskError if what is left to write may not fit (compression is not counted on)."""
    needed, free = sum(found.bytes_per_sample().values()) * left, _free(out)
    if needed > free:
        raise DiskError(
            f"this run may need {_bytes(needed)} and {out} has {_bytes(free)} free: fewer samples, "
            "record=norms, or another out="
        )


def _free(out: Path) -> int:
    existing = next(p for p in (out, *out.absolute().parents) if p.exists())
    return shutil.disk_usage(existing).free


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
