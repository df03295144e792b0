"""Recording and edits inside networks that `torch.compile` has made graphs of."""

import copy
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch._dynamo.utils import counters

from stepscope.hooks import Capture, assemble, record
from stepscope.hooks.edits import Edit, Scale, Swap, edit
from stepscope.hooks.errors import UnsupportedPipelineError
from tests.cases import CASES, Case, wiring
from tests.small import opened

WAYS = ("blocks", "module", "wrapped")
SITE = "double.01.attention.image"
NORMS = (*assemble.NORMS.values(), "x0", "latents", "contribution", "adapter_attention_norm")


@dataclass(frozen=True)
class Copied(Case):
    """A case whose networks are copies: compiling leaves its mark on what it compiles."""

    own: Any = None

    @property
    def pipe(self) -> Any:
        return self.own


@pytest.fixture
def fresh():
    """`fresh(name)`: a case with networks of its own, of which nothing is compiled."""
    torch._dynamo.reset()

    def made(name: str) -> Copied:
        case = CASES[name]
        pipe = copy.copy(case.pipe)
        for part in ("transformer", "unet", "controlnet"):
            if getattr(pipe, part, None) is not None:
                setattr(pipe, part, copy.deepcopy(getattr(pipe, part)))
        return Copied(**{f.name: getattr(case, f.name) for f in fields(Case)}, own=pipe)

    yield made
    torch._dynamo.reset()


def compiled(case: Copied, way: str, **how: Any) -> None:
    """Compile the denoiser, as diffusers' manual has it."""
    options = {"fullgraph": True, "backend": "eager"} | how
    if way == "blocks":
        case.pipe.transformer.compile_repeated_blocks(**options)
    elif way == "module":
        case.pipe.transformer.compile(**options)
    else:
        case.pipe.transformer = torch.compile(case.pipe.transformer, **options)


def graphs(work: Any) -> int:
    """How many graphs are made while `work` runs."""
    counters.clear()
    work()
    assert not counters["graph_break"]
    return counters["stats"]["unique_graphs"]


def same_numbers(one: xr.Dataset, other: xr.Dataset) -> None:
    names = [n for n in NORMS if n in other]
    assert len(names) > 4
    for name in names:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-4, atol=1e-5, err_msg=str(name))


@pytest.mark.parametrize("way", WAYS)
def test_compiled_under_recording_makes_no_further_graph(way, fresh, recorded, tmp_path):
    plain, case = fresh("flux"), fresh("flux")
    compiled(plain, way)
    without = graphs(plain)
    torch._dynamo.reset()
    made: list[np.ndarray] = []

    def calls() -> None:
        with record(case.pipe, tmp_path / "run.zarr"):
            compiled(case, way)
            made.append(case())
            with torch._dynamo.config.patch(error_on_recompile=True):
                made.append(case())

    assert graphs(calls) == without
    same_numbers(
        opened(tmp_path / "run.zarr").isel(sample=[0]), recorded(CASES["flux"]).run[{"sample": [0]}]
    )
    for images in made:
        np.testing.assert_allclose(images, CASES["flux"](), atol=1e-6)


@pytest.mark.parametrize("way", WAYS)
def test_compiled_before_recording_is_seen_and_afterwards_as_before(way, fresh, recorded, tmp_path):
    case = fresh("flux")
    compiled(case, way)
    plain, before = case(), wiring(case.pipe)
    with record(case.pipe, tmp_path / "run.zarr", Capture(level="tokens")):
        case()
    run = opened(tmp_path / "run.zarr")
    same_numbers(recorded(CASES["flux"]).run[{"sample": [0]}], run)
    assert run.attention_token_norm.notnull().all()
    assert wiring(case.pipe) == before
    with torch._dynamo.config.patch(error_on_recompile=True):
        np.testing.assert_array_equal(case(), plain)


@pytest.mark.parametrize("way", WAYS)
def test_edits_of_a_compiled_network_are_those_of_a_plain_one(way, fresh, tmp_path):
    case, one = fresh("flux"), Edit(SITE, Scale(0.5), steps=(0, 2))
    with edit(CASES["flux"].pipe, one):
        asked = CASES["flux"]()
    with edit(case.pipe, one), record(case.pipe, tmp_path / "run.zarr"):
        compiled(case, way)
        made = case()
        with torch._dynamo.config.patch(error_on_recompile=True):
            case()
    np.testing.assert_allclose(made, asked, atol=1e-6)
    assert np.abs(made - CASES["flux"]()).max() > 1e-4
    run = opened(tmp_path / "run.zarr")
    assert [told["do"] for told in run.attrs["edits"]] == ["Scale"]


def test_an_adapters_network_is_compiled_too(fresh, recorded, tmp_path):
    case = fresh("infusenet")
    with record(case.pipe, tmp_path / "run.zarr"):
        for network in (case.pipe.transformer, case.pipe.controlnet):
            for block in (*network.transformer_blocks, *network.single_transformer_blocks):
                block.compile(fullgraph=True, backend="eager")
        case()
    run = opened(tmp_path / "run.zarr")
    same_numbers(recorded(CASES["infusenet"]).run[{"sample": [0]}], run)
    assert run.adapter_attention_norm.sel(stream="identity").notnull().all()
    assert (run.contribution > 0).all()


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_functional_graphs_keep_the_hooks(backend, fresh, recorded, tmp_path):
    """AOTAutograd removes what has no effect, and copies what is changed in place."""
    case, one = fresh("flux"), Edit(SITE, Scale(0.5))
    with edit(CASES["flux"].pipe, one):
        asked = CASES["flux"]()
    with record(case.pipe, tmp_path / "run.zarr"):
        compiled(case, "module", backend=backend)
        case()
        with edit(case.pipe, one):
            made = case()
    np.testing.assert_allclose(made, asked, atol=1e-5)
    first = opened(tmp_path / "run.zarr").isel(sample=[0])
    same_numbers(recorded(CASES["flux"]).run[{"sample": [0]}], first)


def test_what_a_graph_does_not_show_is_refused_by_name(fresh, tmp_path):
    case = fresh("sd_controlnet_cfg")
    case.pipe.unet.compile(backend="eager")
    with record(case.pipe, tmp_path / "run.zarr"):
        with pytest.raises(UnsupportedPipelineError, match="UNet2DConditionModel is compiled, and"):
            case()
    assert not (tmp_path / "run.zarr").exists()


def test_a_wrapped_network_is_the_same_model(fresh, tmp_path):
    """Of which a run takes further calls, and an edit values."""
    case, path = fresh("flux"), tmp_path / "run.zarr"
    with record(case.pipe, path, Capture(level="full", sites=(SITE,))):
        case()
        compiled(case, "wrapped")
        case()
    with edit(case.pipe, Edit(SITE, Swap(str(path), (0,)))):
        case()
    assert opened(path).sizes["sample"] == 2
