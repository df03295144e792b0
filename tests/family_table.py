"""The table of families in docs/families.md, made by recording, editing, verifying and decoding each."""

import argparse
import inspect
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from stepscope.analysis.metrics.decode import pictures
from stepscope.hooks import Edit, Scale, edit, record, verify
from stepscope.hooks.clock import denoiser_of
from stepscope.hooks.edits.sites import Sites
from stepscope.hooks.families import FAMILIES, Family, blocks_of
from tests import family_calls
from tests.cases import CASES
from tests.every_pipeline_calls import Call
from tests.every_pipeline_made import arguments_of, pipeline_of

PAGE = Path(__file__).parents[1] / "docs" / "families.md"
HEADS = ("family", "blocks", "streams", "recorded and edited", "refused", "`verify`", "decoded by")


class Shown(NamedTuple):
    """A pipeline, and a call of it that returns images (sample, row, column, rgb) in [0, 1]."""

    pipe: Any
    call: Callable[[], np.ndarray]


def of_case(name: str) -> Shown:
    return Shown(CASES[name].pipe, lambda: CASES[name](seeds=(0,)))


def of_kind(kind: str, **given: Any) -> Shown:
    return Shown(
        family_calls.pipeline(kind), lambda: np.asarray(family_calls.called(kind, **given))
    )


def kontext() -> Shown:
    call = Call("FluxKontextPipeline", frozenset({"guided"}))
    pipe = pipeline_of(call)
    return Shown(pipe, lambda: np.asarray(pipe(**arguments_of(call)).images))


SHOWN: dict[str, Callable[[], list[Shown]]] = {
    "FLUX": lambda: [of_case("flux_cfg"), kontext()],
    "U-Net": lambda: [of_case("sd_cfg"), of_case("sdxl_cfg")],
    "Stable Diffusion 3": lambda: [of_case("sd3_cfg"), of_kind("StableDiffusion3PAGPipeline")],
    "Chroma": lambda: [of_case("chroma_cfg")],
    "Qwen-Image": lambda: [of_case("qwen_cfg"), of_kind("QwenImageEditPipeline")],
    "FLUX.2": lambda: [of_case("klein_cfg"), of_kind("Flux2KleinInpaintPipeline")],
    "Z-Image": lambda: [of_case("z_image_cfg")],
}
"""Pipelines that show everything that a family records."""


def families() -> list[Family]:
    """Those of denoisers that ship, in the order of the list."""
    return [f for f in FAMILIES if f.pipelines and f.model.__module__.startswith("diffusers.")]


def row(family: Family) -> str:
    """A line of the table. Raises AssertionError where something of it does not hold."""
    streams: list[str] = []
    claims: list[int] = []
    vaes: list[str] = []
    shown = SHOWN[family.name]()
    for one in shown:
        streams += _recorded(one)
        findings = verify(one.pipe, one.call)
        assert all(finding.holds for finding in findings), findings
        claims.append(len(findings))
        with edit(one.pipe, Edit("*", Scale(1.0))):
            assert one.call().tobytes() == one.call().tobytes()
        vaes.append(type(one.pipe.vae).__name__)
    network = denoiser_of(shown[0].pipe)
    kinds = dict.fromkeys(block.kind for block in blocks_of(network))
    assert Sites.of_pipe(shown[0].pipe).names
    cells = (
        f"{family.name}: `{family.model.__name__}`",
        ", ".join(f"`{kind}`" for kind in kinds),
        ", ".join(f"`{stream}`" for stream in dict.fromkeys(streams)),
        _several(family.pipelines),
        _several(family.refused),
        f"{max(claims)} claims hold",
        ", ".join(f"`{name}`" for name in dict.fromkeys(vaes)),
    )
    return f"| {' | '.join(cells)} |"


def _recorded(one: Shown) -> list[str]:
    """Streams that hold any number; the images are those that were returned, and the VAE's own."""
    with tempfile.TemporaryDirectory() as folder:
        with record(one.pipe, Path(folder) / "run.zarr"):
            images = one.call()
        run = xr.open_zarr(Path(folder) / "run.zarr").load()
    assert one.call().tobytes() == images.tobytes()
    whole = (images * 255).round()
    assert (run.image.values == whole).all()
    assert np.abs(pictures(one.pipe.vae, run.final_latents.values) - whole).max() <= 1
    held = run.attention_norm.notnull().any([d for d in run.attention_norm.dims if d != "stream"])
    return [str(stream) for stream in run.stream.values[held.values]]


def _several(kinds: Any) -> str:
    """Names of pipelines, or how many there are where docs/pipelines.md lists them."""
    if len(kinds) > 8:
        return f"{len(kinds)} pipelines"
    return ", ".join(f"`{kind}`" for kind in kinds) or "–"


def table() -> list[str]:
    """Every line."""
    return [
        f"| {' | '.join(HEADS)} |",
        f"|{'---|' * len(HEADS)}",
        *(row(family) for family in families()),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=inspect.getdoc(__import__(__name__)))
    parser.add_argument("--into", type=Path, help="put the table into this page, or show it")
    into = parser.parse_args().into
    made = "\n".join(table())
    if into is None:
        print(made)
    else:
        page = into.read_text()
        into.write_text(re.sub(r"^\| family \|.*?\n(?!\|)", made + "\n", page, flags=re.M | re.S))


if __name__ == "__main__":
    main()
