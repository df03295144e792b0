"""PuLID for FLUX gives what the published code gave, and nothing where it is off."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from diffusers import FluxControlNetPipeline, FluxPipeline, FluxTransformer2DModel
from safetensors.torch import load_file, save_file

from stepscope.hooks import Capture, Edit, Mean, Scale, Swap, edit, record, verify
from stepscope.hooks.errors import EditError, StepscopeError
from stepscope.hooks.families import blocks_of
from stepscope.hooks.injections import injections_of
from stepscope.probes.adapters import pulid_injection
from stepscope.probes.adapters.pulid_injection import declared, injected
from stepscope.probes.adapters.pulid_network import Pulid, check_fits, load_pulid, sizes_of
from stepscope.probes.adapters.pulid_sizes import PulidSizes
from stepscope.probes.weights import WeightsError
from tests.cases import CASES as STUDIED
from tests.cases import wiring
from tests.models import INFINITE_YOU, REFERENCE, plain_controlnet

FOLDER = REFERENCE / "pulid-flux"
FILE = FOLDER / "pulid_flux_tiny.safetensors"
CASES: dict[str, dict[str, Any]] = {
    case["name"]: case for case in json.loads((FOLDER / "cases.json").read_text())
}
PLACES = ["double.00", "double.02", "double.04", "single.00", "single.04"]


@cache
def values() -> dict[str, np.ndarray]:
    with np.load(FOLDER / "reference.npz") as file:
        return dict(file)


def of(case: str, name: str) -> torch.Tensor:
    return torch.from_numpy(values()[f"{case}/{name}"])


def pipeline(backbone: str = "dev", *, controlnet: bool = False) -> Any:
    return made(backbone, controlnet)


@cache
def made(backbone: str, controlnet: bool) -> Any:
    """The reference's transformer; the other parts are the same as InfiniteYou's reference."""
    transformer = FluxTransformer2DModel.from_pretrained(
        FOLDER / f"flux-{backbone}" / "transformer"
    )
    pipe = FluxPipeline.from_pretrained(INFINITE_YOU / f"flux-{backbone}", transformer=transformer)
    if controlnet:
        parts = pipe.components
        parts = {k: v for k, v in parts.items() if k not in ("image_encoder", "feature_extractor")}
        pipe = FluxControlNetPipeline(**parts, controlnet=plain_controlnet())
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def network() -> Pulid:
    """Of the file, with the identity of the case `dev` and that of nobody."""
    network = load_pulid(FILE, torch.float32)
    network.identity = network.tokens(of("dev", "id_cond"), of("dev", "id_vit_hidden"))
    network.unconditional = of("dev_true_cfg_all", "uncond_id")
    return network


def called(name: str, rows: int = 1, pipe: Any = None, **more: Any) -> Any:
    """A case's call; the same noise in each row. Latents."""
    case = CASES[name]
    pipe = pipe or pipeline(case["backbone"])
    noise = of(name, "initial_latents").repeat(rows, 1, 1, 1)
    arguments = {
        "negative_prompt": [case["negative"]] * rows if "negative" in case else None,
        "true_cfg_scale": case.get("true_cfg", 1.0),
        "guidance_scale": case.get("guidance", 0.0),
        "num_inference_steps": case["steps"],
        "height": case["height"],
        "width": case["width"],
        "latents": pipe._pack_latents(noise, rows, *noise.shape[1:]),
        "max_sequence_length": 16,
        "output_type": "latent",
        "generator": torch.Generator().manual_seed(0),  # of the control image's encoding
    }
    return pipe([case["prompt"]] * rows, **arguments | more).images


@contextmanager
def seen(modules: Any, of: Callable[..., Any]) -> Iterator[list[Any]]:
    """What plain hooks behind the modules see."""
    found: list[Any] = []
    handles = [m.register_forward_hook(lambda m, a, o: found.append(of(a, o))) for m in modules]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def close(found: Any, case: str, name: str, tolerance: float) -> None:
    np.testing.assert_allclose(found, values()[f"{case}/{name}"], rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", CASES)
def test_identity_tokens_are_the_published_ones(name):
    network = load_pulid(FILE, torch.float32)
    face, hidden = of(name, "id_cond"), of(name, "id_vit_hidden")
    made = network.tokens(face, hidden)
    np.testing.assert_allclose(made, values()[f"{name}/id"], rtol=0, atol=1e-5)
    if f"{name}/uncond_id" in values():
        nobody = network.tokens(torch.zeros_like(face), torch.zeros_like(hidden))
        np.testing.assert_allclose(nobody, values()[f"{name}/uncond_id"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_every_call_is_the_published_one(name, network, tmp_path):
    """And the run holds id_weight times the published contribution, over the block's own output."""
    case, pipe = CASES[name], pipeline(CASES[name]["backbone"])
    model, latents = pipe.transformer, []
    network.identity = network.tokens(of(name, "id_cond"), of(name, "id_vit_hidden"))
    steps = range(case["start_step"], case["steps"])

    def keep(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        latents.append(tensors["latents"].numpy())
        return {}

    blocks = [block.module for block in blocks_of(model) if block.name in PLACES]
    with (
        injected(pipe, network, scale=case["id_weight"], steps=steps),
        record(pipe, tmp_path / "run.zarr"),
        seen([model], lambda args, output: output[0].numpy()) as velocity,
        seen(network.pulid_ca, lambda args, output: output.numpy()) as added,
        seen(blocks, lambda args, output: float(output[1].norm())) as base,
    ):
        called(name, callback_on_step_end=keep)
    close(np.stack(velocity, 1), name, "velocity", 1e-4)
    close(np.stack(latents, 1), name, "latents", 1e-4)

    run = xr.open_zarr(tmp_path / "run.zarr").load()
    assert run.injection.values.tolist() == [f"{block}.image.pulid" for block in PLACES]
    stored = run.contribution[0].transpose("step", "branch", "injection").values.reshape(-1, 5)
    given = values()[f"{name}/id_call"]
    assert len(added) == 5 * given.sum()
    assert (stored[~given] == 0).all()
    if given.any():
        close(np.stack(added[:5], 1), name, "contribution", 1e-4)
        first = int(given.argmax())
        norms = np.linalg.norm(values()[f"{name}/contribution"].reshape(5, -1), axis=1)
        expected = case["id_weight"] * norms / base[5 * first : 5 * first + 5]
        np.testing.assert_allclose(stored[first], expected, rtol=1e-4)
        assert (stored[given] > 0).all()


def test_the_published_file_fits_strictly():
    """At full size, names and shapes; weights have no memory on the device `meta`."""
    told = json.loads((FOLDER / "state_dict.json").read_text())["pulid_flux_v0.9.1.safetensors"]
    shapes = {name: tuple(shape) for name, shape in told.items()}
    sizes = PulidSizes.of(shapes)
    with torch.device("meta"):
        made = {name: tuple(weight.shape) for name, weight in Pulid(sizes).state_dict().items()}
    assert made == shapes
    assert (sizes.numbers, sizes.modules, sizes.heads, sizes.image_heads) == (571033600, 20, 16, 16)
    check_fits(sizes, "pulid", doubles=19, singles=38, width=3072)


def test_sizes_are_those_of_the_header():
    told, sizes = json.loads((FOLDER / "config.json").read_text()), sizes_of(FILE)
    former, ca = told["id_former"], told["ca"]
    assert (sizes.dim, sizes.depth, sizes.heads) == (
        former["dim"],
        former["depth"],
        former["heads"],
    )
    assert (sizes.queries, sizes.width) == (former["num_queries"], former["output_dim"])
    assert (sizes.face_tokens, sizes.inner) == (former["num_id_token"], 4 * former["dim"])
    assert (sizes.modules, sizes.image, sizes.image_heads) == (5, ca["dim"], ca["heads"])
    assert (sizes.face, sizes.vit) == (told["face"] + told["clip"], told["vit_width"])


def altered(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> Path:
    weights = load_file(FILE)
    change(weights)
    save_file(weights, folder / "other.safetensors")
    return folder / "other.safetensors"


WRONG: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda folder: folder / "no.safetensors", r"no file '.*no\.safetensors'"),
    "a weight less": (
        lambda folder: altered(folder, lambda w: w.pop("pulid_ca.3.to_kv.weight")),
        r"lacks pulid_ca\.3\.to_kv\.weight",
    ),
    "no IDFormer": (
        lambda folder: altered(folder, lambda w: w.pop("pulid_encoder.latents")),
        r"is not PuLID for FLUX: it lacks pulid_encoder\.latents",
    ),
    "another weight": (
        lambda folder: altered(folder, lambda w: w.update({"ip.to_k": torch.zeros(2)})),
        r"has what PuLID for FLUX has not, ip\.to_k",
    ),
    "another shape": (
        lambda folder: altered(
            folder, lambda w: w.update({"pulid_ca.2.norm1.bias": torch.zeros(9)})
        ),
        r"pulid_ca\.2\.norm1\.bias is \(9,\), and fits the others as \(28,\)",
    ),
    "for SDXL": (
        lambda folder: altered(folder, lambda w: (w.clear(), w.update(id_adapter=torch.ones(1)))),
        "is PuLID for SDXL: name pulid_flux_v0.9.1.safetensors",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_another_file_is_refused_with_what_it_lacks(kind, tmp_path):
    make, words = WRONG[kind]
    path = make(tmp_path)
    for read in (sizes_of, lambda path: load_pulid(path, torch.float32)):
        with pytest.raises(WeightsError, match=words):
            read(path)


def test_a_truncated_file_is_refused(tmp_path):
    path = tmp_path / "half.safetensors"
    path.write_bytes(FILE.read_bytes()[:-1000])
    with pytest.raises(WeightsError, match="cannot be read"):
        sizes_of(path)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"doubles": 19, "singles": 38, "width": 32}, "has 5 pulid_ca, .* blocks needs 20"),
        (
            {"doubles": 5, "singles": 6, "width": 3072},
            "32 channels, and the transformer's have 3072",
        ),
    ],
)
def test_another_backbone_is_refused(model, words):
    with pytest.raises(WeightsError, match=words):
        check_fits(sizes_of(FILE), "pulid", **model)


def test_a_transformer_of_other_blocks_is_refused(network):
    pipe = FluxPipeline.from_pretrained(INFINITE_YOU / "flux-dev")
    with pytest.raises(WeightsError, match="3 double and 5 single blocks needs 4"):
        with injected(pipe, network):
            pass


def test_places_are_known_without_weights():
    config = pipeline().transformer.config
    with torch.device("meta"):
        model: Any = FluxTransformer2DModel.from_config(config)
    with declared(model):
        assert [place.block for place in injections_of(model)] == PLACES
    assert not injections_of(model)


def test_people_of_one_batch_are_each_as_alone(network):
    people = [network.tokens(of(c, "id_cond"), of(c, "id_vit_hidden")) for c in ("dev", "schnell")]
    alone = []
    with injected(pipeline(), network):
        for network.identity in people:
            alone.append(called("dev", num_inference_steps=2))
        network.identity = torch.cat(people)
        both = called("dev", rows=2, num_inference_steps=2)
    torch.testing.assert_close(both, torch.cat(alone), rtol=0, atol=1e-5)
    assert (alone[0] - alone[1]).abs().max() > 0.1


@pytest.mark.parametrize("off", [{"scale": 0.0}, {"steps": ()}, {"steps": (9,)}])
def test_it_is_not_run_where_it_is_off(off, network, tmp_path):
    plain = called("dev", num_inference_steps=2)
    with injected(pipeline(), network, **off), seen(network.pulid_ca, lambda a, o: 1) as ran:
        with record(pipeline(), tmp_path / "run.zarr"):
            assert torch.equal(called("dev", num_inference_steps=2), plain)
    assert not ran
    run = xr.open_zarr(tmp_path / "run.zarr").load()
    assert run.contribution.shape == (1, 2, 1, 5)
    assert not run.contribution.any()


def test_steps_are_those_that_are_named(network, tmp_path):
    """Before the first, latents are bit for bit those of the pipeline alone."""
    for name, steps in (("some", (2, 4)), ("none", ())):
        with (
            injected(pipeline(), network, steps=steps),
            record(pipeline(), tmp_path / f"{name}.zarr"),
        ):
            called("dev")
    some, none = (xr.open_zarr(tmp_path / f"{name}.zarr").load() for name in ("some", "none"))
    on = (some.contribution > 0).all("injection").isel(sample=0, branch=0)
    assert on.values.tolist() == [step in (2, 4) for step in range(6)]
    same = [bool((some.latents[0, i] == none.latents[0, i]).all()) for i in range(6)]
    assert same == [True] * 3 + [False] * 3


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        ({"identity": None}, "set `identity` before the call"),
        ({"unconditional": None}, "set `unconditional` before the call"),
        ({"identity": torch.zeros(3, 6, 28)}, "`identity` has 3 rows, and the call has 1"),
    ],
)
def test_an_error_leaves_nothing_behind(tokens, words, network):
    pipe = pipeline()
    called("dev_true_cfg_all")  # a first call sets attributes of the pipeline's own
    before, plain = wiring(pipe), called("dev", num_inference_steps=2)
    for name, value in tokens.items():
        setattr(network, name, value)
    with pytest.raises(StepscopeError, match=words):
        with injected(pipe, network):
            called("dev_true_cfg_all")
    assert wiring(pipe) == before
    assert not injections_of(pipe.transformer)
    assert torch.equal(called("dev", num_inference_steps=2), plain)


def test_it_is_edited_away_and_left_alone(network):
    plain = called("dev", num_inference_steps=2)
    with injected(pipeline(), network):
        full = called("dev", num_inference_steps=2)
        with edit(pipeline(), Edit("*.adapter", Scale(1.0))):
            assert torch.equal(called("dev", num_inference_steps=2), full)
        with edit(pipeline(), Edit("*.adapter", Scale(0.0))):
            torch.testing.assert_close(
                called("dev", num_inference_steps=2), plain, rtol=0, atol=1e-5
            )
        with edit(pipeline(), Edit("*.image.pulid", Scale(0.5))):
            half = called("dev", num_inference_steps=2)
    with injected(pipeline(), network, scale=0.5):
        torch.testing.assert_close(half, called("dev", num_inference_steps=2), rtol=0, atol=1e-5)
    assert (full - plain).abs().max() > 0.1


def test_one_place_is_edited_alone(network, tmp_path):
    with injected(pipeline(), network), record(pipeline(), tmp_path / "run.zarr"):
        with edit(pipeline(), Edit("single.00.adapter", Scale(0.0), steps=(1, 3))):
            called("dev")
    now = xr.open_zarr(tmp_path / "run.zarr").load().contribution.isel(sample=0, branch=0)
    for step in range(6):
        assert (now[step] == 0).values.tolist() == [False] * 3 + [step in (1, 2), False]


def test_people_of_one_batch_are_exchanged(network):
    """At every place, what is added to one row is what was to be added to the other."""
    people = [network.tokens(of(c, "id_cond"), of(c, "id_vit_hidden")) for c in ("dev", "schnell")]
    with injected(pipeline(), network):
        network.identity = torch.cat(people[::-1])
        expected = called("dev", rows=2, num_inference_steps=2)
        network.identity = torch.cat(people)
        with edit(pipeline(), Edit("*.adapter", Swap((1, 0)))):
            # the noise of the rows is the same, so that in the first step only the people are other
            swapped = called("dev", rows=2, num_inference_steps=2)
        with edit(pipeline(), Edit("*.adapter", lambda values, at: at.batch[[1, 0]])):
            assert torch.equal(called("dev", rows=2, num_inference_steps=2), swapped)
    assert (swapped - expected).abs().max() < (swapped - expected.flip(0)).abs().max()


def test_a_place_holds_the_mean_of_a_run(network, tmp_path):
    """Of one sample, which is itself; the whole tensor is kept under the place's own name."""
    sites = ("double.02.image.pulid", "single.04.image.pulid")
    with injected(pipeline(), network, steps=range(1, 6)):
        with record(pipeline(), tmp_path / "run.zarr", Capture("full", sites=sites)):
            full = called("dev")
        changes = Edit(sites, Mean(tmp_path / "run.zarr"), steps=(1, 6))
        with edit(pipeline(), changes):
            torch.testing.assert_close(called("dev"), full, rtol=0, atol=1e-6)
    run = xr.open_zarr(tmp_path / "run.zarr").load()
    kept = run[sites[0]].isel(sample=0, branch=0)
    assert kept.shape == (6, 64, 32)
    assert kept[0].isnull().all()
    ratio = run.contribution.sel(injection=sites[0]).isel(sample=0, branch=0)[1:]
    np.testing.assert_allclose(
        np.linalg.norm(kept[1:].values.reshape(5, -1), axis=1) / ratio,
        run.residual_norm.sel(block="double.02", stream="image")[0, 1:, 0] * 8,
        rtol=1e-4,
    )
    with injected(pipeline(), network), edit(pipeline(), Edit(sites, Mean(tmp_path / "run.zarr"))):
        with pytest.raises(EditError, match=r"has nothing of double\.02\.image\.pulid at step 0"):
            called("dev")


@pytest.mark.parametrize("edited_first", [True, False])
def test_the_residual_stream_is_edited_before(edited_first, network):
    """The block's own output is a site; what PuLID adds to it comes after the edit."""
    contexts = [
        injected(pipeline(), network),
        edit(pipeline(), Edit("double.00.residual.image", Scale(0.0))),
    ]
    one, other = contexts[::-1] if edited_first else contexts
    with one, other, seen(network.pulid_ca[:1], lambda args, output: args[1]) as asking:
        called("dev", num_inference_steps=1)
    assert not asking[0].any()


@pytest.mark.parametrize("name", ["dev", "dev_true_cfg_all", "controlnet"])
def test_verify_sees_what_switching_it_off_takes_away(name, network):
    pipe = pipeline(controlnet=True) if name == "controlnet" else pipeline()
    more: dict[str, Any] = {"num_inference_steps": 2, "output_type": "np"}
    if name == "controlnet":
        more |= {"control_image": torch.full((1, 3, 64, 64), 0.5), "pipe": pipe}
    case = "dev" if name == "controlnet" else name
    with injected(pipe, network, scale=0.7):
        findings = verify(pipe, lambda: called(case, rows=2, **more))
    assert not [finding for finding in findings if not finding.holds], findings
    (added,) = [f for f in findings if f.claim.startswith("a contribution is what")]
    passes = 2 if name == "dev_true_cfg_all" else 1
    places = 5 + (11 if name == "controlnet" else 0)
    assert added.detail.startswith(f"{places * passes} comparisons")
    assert "not checked" not in added.detail


def test_verify_notices_that_more_is_added_than_is_told(network, monkeypatch):
    monkeypatch.setattr(pulid_injection, "returned", lambda args, kwargs, output: 0.9 * output)
    with injected(pipeline(), network):
        findings = verify(
            pipeline(), lambda: called("dev", num_inference_steps=2, output_type="np")
        )
    wrong = [finding.claim for finding in findings if not finding.holds]
    assert [claim for claim in wrong if claim.startswith("a contribution is what")]


def test_another_pipeline_is_refused(network):
    with pytest.raises(
        StepscopeError, match="adds to FluxTransformer2DModel, and the pipeline has UNet"
    ):
        with injected(STUDIED["sd"].pipe, network):
            pass
