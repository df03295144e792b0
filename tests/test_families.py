"""What each family adds to the laws of tests/cases.py: pipelines, texts, VAEs, and what is refused."""

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import xarray as xr
from diffusers.hooks._helpers import TransformerBlockRegistry

from stepscope.analysis.metrics.decode import load_vae, pictures
from stepscope.analysis.metrics.vaes import kind_of
from stepscope.hooks import Capture, Edit, Scale, edit, record, verify
from stepscope.hooks.edits.sites import Sites
from stepscope.hooks.errors import StepscopeError, UnsupportedPipelineError
from stepscope.hooks.families import FAMILIES, blocks_of, family_of
from stepscope.hooks.families.joint import second_alone, text_first
from stepscope.hooks.support import branches_of
from tests import family_calls, family_models
from tests.cases import CASES, NEGATIVE, PROMPT
from tests.every_pipeline import PIPELINES
from tests.family_calls import CALLED, called, embeds, picture, pipeline
from tests.family_modules import length

LONG = "a man portrait cinematic a man portrait"


@pytest.fixture(autouse=True)
def small_references(monkeypatch):
    """Qwen-Image's editing pipelines bring a reference to a million pixels, whatever its size."""
    for name in ("edit", "edit_inpaint", "edit_plus"):
        module = importlib.import_module(f"diffusers.pipelines.qwenimage.pipeline_qwenimage_{name}")
        given = (48, 32) if name == "edit_plus" else (48, 32, None)
        monkeypatch.setattr(module, "calculate_dimensions", lambda *_, given=given: given)


def recorded(kind: str, path: Path, capture: Capture, **given: Any) -> xr.Dataset:
    with record(pipeline(kind), path / "run.zarr", capture):
        called(kind, **given)
    return xr.open_zarr(path / "run.zarr").load()


FIRST = {next(iter(family.pipelines)) for family, _ in family_calls.FAMILIES.values()}
each_kind = pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=[pytest.mark.slow] * (k not in FIRST)) for k in CALLED]
)
"""Every pipeline class of the families; in `make test` one of each family."""


@each_kind
def test_every_claim_holds_on_every_pipeline_of_a_family(kind):
    findings = verify(pipeline(kind), lambda: called(kind))
    assert [f"{f.claim}: {f.detail}" for f in findings if not f.holds] == []
    guided = [f for f in findings if f.claim == "the branches are what they are named"]
    assert len(guided) == (kind != "Flux2Pipeline")


@each_kind
def test_every_site_of_a_family_can_be_edited(kind):
    """What is edited at a site is what the next module reads: the image is another, but for the text that
    comes out of the last block, which nothing reads."""
    plain, last = called(kind), blocks_of(pipeline(kind).transformer)[-1].name
    unread = {f"{last}.attention.text", f"{last}.residual.text"}
    for name in Sites.of_pipe(pipeline(kind)).names:
        with edit(pipeline(kind), Edit(name, Scale(0.0))):
            same = called(kind).tobytes() == plain.tobytes()
        assert same == (name in unread), name
    with edit(pipeline(kind), Edit("*", Scale(1.0))):
        assert called(kind).tobytes() == plain.tobytes()


def test_every_pipeline_of_a_known_transformer_is_known_or_refused_for_its_cause():
    kinds = {family.model.__name__: family for family, _ in family_calls.FAMILIES.values()}
    told: dict[str, list[str]] = {}
    for file in PIPELINES.rglob("pipeline_*.py"):
        text = file.read_text()
        for definition in re.split(r"^class ", text, flags=re.M)[1:]:
            made_of = re.search(r"^    def __init__\((.*?)\)( -> None)?:$", definition, re.M | re.S)
            of = [name for name in kinds if made_of and re.search(rf"\b{name}\b", made_of[1])]
            if of:
                told[re.split(r"\W", definition, maxsplit=1)[0]] = of
    assert len(told) > 25
    for kind, of in told.items():
        family = kinds[of[0]]
        assert (kind in family.pipelines) != (kind in family.refused), kind
        if kind in family.refused:
            loop: Any = object.__new__(getattr(diffusers, kind))
            with pytest.raises(UnsupportedPipelineError, match=re.escape(family.refused[kind])):
                branches_of(loop, family)
    named = {kind for family in kinds.values() for kind in {*family.pipelines, *family.refused}}
    assert named == {*told}


def test_blocks_return_what_diffusers_own_registry_says():
    """Where it has a block's class; single blocks of one sequence have no index for the text."""
    seen = set()
    for name in ("flux", "sd3", "qwen", "flux2", "z_image"):
        for block in blocks_of(CASES[name].denoiser):
            try:
                told = TransformerBlockRegistry.get(type(block.module))
            except ValueError:
                continue
            site = next(s for s in block.sites if s.quantity == "residual")
            in_two = site.read in (text_first, second_alone)
            assert told.return_hidden_states_index == (1 if in_two else 0)
            assert told.return_encoder_hidden_states_index == (0 if in_two else None)
            seen.add(type(block.module).__name__)
    assert len(seen) == 7


# Texts of different lengths in one batch.


@pytest.mark.parametrize("name", ["chroma", "qwen", "flux2", "z_image"])
def test_text_and_padding_are_those_of_each_sample(name, tmp_path):
    """A sample's text has the norms that it has alone, or near: padding is masked or the same."""
    case = CASES[name]
    with record(case.pipe, tmp_path / "run.zarr"):
        case(seeds=(0, 1), prompt=[PROMPT, LONG], steps=1)
    run = xr.open_zarr(tmp_path / "run.zarr").load()
    assert run.text_tokens.values.tolist() == [length(PROMPT), length(LONG)]
    for sample, text in enumerate((PROMPT, LONG)):
        with record(case.pipe, tmp_path / f"{sample}.zarr"):
            case(seeds=(sample,), prompt=[text], steps=1)
        alone = xr.open_zarr(tmp_path / f"{sample}.zarr").load()
        for stream in ("image", "text"):
            for norm in ("attention_norm", "residual_norm"):
                found = run[norm][sample].sel(stream=stream)
                expected = alone[norm][0].sel(stream=stream)
                np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-5)
    padded = run.attention_norm.sel(stream="padding").notnull().any(("step", "branch", "block"))
    assert padded.values.tolist() == [True, name != "qwen"]  # which pads to the longest text


@pytest.mark.parametrize("name", ["qwen", "z_image"])
def test_words_of_each_sample_are_edited_apart(name):
    case = CASES[name]
    block = blocks_of(case.denoiser)[-1]
    site = f"{block.name}.attention.text"
    seen: dict[str, torch.Tensor] = {}

    def keep(module: Any, args: Any, output: Any) -> None:
        text = output[1] if isinstance(output, tuple) else output[:, 32:]
        seen.setdefault("text", text.clone())

    for word, inside in (("text", True), ("padding", False)):
        seen.clear()
        with edit(case.pipe, Edit(site, Scale(0.0), tokens=word)):
            handle = block.sites[0].module.register_forward_hook(keep)
            case(seeds=(0, 1), prompt=[PROMPT, LONG], steps=1)
            handle.remove()
        for row, text in enumerate((PROMPT, LONG)):
            of = seen["text"][row]
            assert bool(of[: length(text)].any()) is not inside
            if length(text) < len(of):
                assert bool(of[length(text) :].any()) is inside


def test_padding_in_front_of_a_text_is_told_from_it(tmp_path):
    """The same text, padded on the other side: its own tokens are the last ones."""
    pipe = family_models.flux2(side="left")
    given = dict(CASES["flux2"].call) | {"height": 32, "width": 48, "num_inference_steps": 1}
    block = blocks_of(pipe.transformer)[0]
    seen: list[torch.Tensor] = []
    handle = block.sites[0].module.register_forward_hook(
        lambda m, a, out: seen.append(out[1].double())
    )
    with record(pipe, tmp_path / "run.zarr"):
        pipe(prompt=PROMPT, output_type="np", **given)
    handle.remove()
    run, count = xr.open_zarr(tmp_path / "run.zarr").load(), length(PROMPT)
    assert run.text_tokens.values.tolist() == [count]
    norms = seen[0][0].square().sum(-1)
    for stream, of in (("text", norms[-count:]), ("padding", norms[:-count])):
        found = run.attention_norm.sel(block=block.name, stream=stream).values.item()
        assert found == pytest.approx(of.mean().sqrt().item(), rel=1e-5)

    def again() -> Any:
        return pipe(prompt=PROMPT, generator=torch.Generator().manual_seed(0), **given)

    assert [f.claim for f in verify(pipe, again) if not f.holds] == []


def test_negative_texts_of_one_encoding_have_lengths_of_their_own(tmp_path):
    """ChromaPipeline encodes both prompts at once."""
    case = CASES["chroma_cfg"]
    call = {"prompt": [PROMPT], "negative_prompt": NEGATIVE, "steps": 1}
    seen: list[torch.Tensor] = []
    block = blocks_of(case.denoiser)[0]
    handle = block.sites[0].module.register_forward_hook(
        lambda m, a, out: seen.append(out[1].double())
    )
    with record(case.pipe, tmp_path / "run.zarr"):
        case(**call)
    handle.remove()
    run = xr.open_zarr(tmp_path / "run.zarr").load()
    for branch, text, of in zip(("positive", "negative"), (PROMPT, NEGATIVE), seen, strict=True):
        norm = of[0, : length(text)].square().sum(-1).mean().sqrt().item()
        stored = run.attention_norm.sel(block=block.name, stream="text", branch=branch)
        assert stored.values.item() == pytest.approx(norm, rel=1e-5)


def test_the_prompt_is_as_it_was_given(tmp_path):
    """ZImagePipeline puts its template around the prompts of the caller's own list."""
    case, given = CASES["z_image"], [PROMPT]
    with record(case.pipe, tmp_path / "run.zarr"):
        case(prompt=given)
    assert xr.open_zarr(tmp_path / "run.zarr").prompt.values.tolist() == [PROMPT]


# Guidance, and tokens behind the image.


def test_skip_layer_guidance_is_a_branch_without_its_blocks(tmp_path):
    skipping = {"skip_guidance_layers": [1, 3], "skip_layer_guidance_start": -1.0}
    skipping["skip_layer_guidance_stop"] = 0.5
    kind = "StableDiffusion3Pipeline"
    run = recorded(kind, tmp_path, Capture(velocity=True), **skipping)
    assert run.branch.values.tolist() == ["positive", "negative", "perturbed"]
    assert run.not_finite.values.tolist() == [""]
    perturbed = run.attention_norm.sel(branch="perturbed", stream="image")[0]
    left_out = ["double.01", "dual.01", "double.03"]
    assert perturbed[:2].sel(block=left_out).isnull().all()
    assert perturbed[:2].drop_sel(block=left_out).notnull().all()
    assert perturbed[2:].isnull().all()  # the window has ended
    positive, negative, left = (run.velocity[0, :2].sel(branch=b) for b in run.branch.values)
    guided = negative + 4.0 * (positive - negative) + 2.8 * (positive - left)
    expected = run.latents[0, :2] - run.sigma[:2] * guided
    np.testing.assert_allclose(run.x0[0, :2], expected.transpose(*run.x0.dims[1:]), atol=1e-4)
    findings = verify(pipeline(kind), lambda: called(kind, **skipping))
    assert [f"{f.claim}: {f.detail}" for f in findings if not f.holds] == []


REFERENCES = {
    "QwenImageEditPipeline": {},
    "Flux2Pipeline": {"image": picture(2)},
    "Flux2KleinInpaintPipeline": {},
}


@pytest.mark.parametrize("kind", REFERENCES)
def test_reference_tokens_are_recorded_and_edited_apart(kind, tmp_path):
    block = blocks_of(pipeline(kind).transformer)[0]
    site = f"{block.name}.residual.image"
    given, sites = REFERENCES[kind], Capture("full", sites=(site,))
    run = recorded(kind, tmp_path, sites, **given)
    whole = torch.from_numpy(run[site][:, 0, 0].values).double()
    for stream, tokens in (("image", whole[:, :24]), ("reference", whole[:, 24:])):
        norm = tokens.square().sum(-1).mean(-1).sqrt().numpy()
        stored = run.residual_norm[:, 0, 0].sel(block=block.name, stream=stream)
        np.testing.assert_allclose(stored, norm, rtol=1e-5)
    with edit(pipeline(kind), Edit(site, Scale(0.0), tokens="reference")):
        edited = recorded(kind, tmp_path / "edited", sites, **given)
    np.testing.assert_array_equal(edited[site][:, 0, :, :24], run[site][:, 0, :, :24])
    assert (edited[site][:, 0, :, 24:] == 0).all()


def test_patches_that_are_not_known_are_refused():
    config: Any = family_models.sd3_transformer().config
    sizes: dict[str, Any] = {**config, "patch_size": 4}
    known = inspect.signature(diffusers.SD3Transformer2DModel.__init__).parameters
    other = diffusers.SD3Transformer2DModel(**{k: v for k, v in sizes.items() if k in known})
    with pytest.raises(UnsupportedPipelineError, match="patches of 4 latents, and 2 are known"):
        blocks_of(other)


def test_embeddings_with_a_mask_say_which_tokens_are_text(tmp_path):
    mask = torch.tensor([[1, 1, 1, 1, 0, 0, 0]])
    given = {"prompt": None, "prompt_embeds": embeds(), "negative_prompt": None}
    run = recorded("QwenImagePipeline", tmp_path, Capture(), prompt_embeds_mask=mask, **given)
    assert run.text_tokens.values.tolist() == [4]
    assert run.attention_norm.sel(stream="padding").notnull().all()
    scattered = torch.tensor([[1, 0, 1, 1, 1, 1, 1]])
    run = recorded(
        "QwenImagePipeline", tmp_path / "no", Capture(), prompt_embeds_mask=scattered, **given
    )
    assert run.text_tokens.values.tolist() == [-1]
    assert run.attention_norm.sel(stream="text").isnull().all()


# Latents and images.

OF_FAMILIES = ["sd3", "chroma", "qwen", "flux2", "klein", "z_image"]


@pytest.mark.parametrize("name", OF_FAMILIES)
def test_latents_are_decoded_as_the_pipeline_does(name, tmp_path, request):
    case = CASES[name]
    case.pipe.vae.save_pretrained(tmp_path / "vae")
    with record(case.pipe, tmp_path / "run.zarr"):
        images = case(seeds=(0, 1))
    run = xr.open_zarr(tmp_path / "run.zarr").load()
    vae = load_vae(str(tmp_path / "vae"), "float32", "cpu")
    found = pictures(vae, run.final_latents.values)
    assert np.abs(found - (images * 255).round()).max() <= 1
    x0 = pictures(vae, run.x0.values[:, -1])
    if not case.pipe.scheduler.sigmas[-1]:  # the last estimate of a flow is what it ends with
        assert np.abs(x0.astype(int) - found).max() <= 1


def test_a_vae_that_is_not_known_is_refused():
    with pytest.raises(StepscopeError, match=r"AutoencoderKLWan is not known; did you mean"):
        kind_of("AutoencoderKLWan")


def test_the_family_is_that_of_the_model():
    for name in OF_FAMILIES:
        family = family_of(CASES[name].denoiser)
        assert type(CASES[name].pipe).__name__ in family.pipelines
        assert isinstance(CASES[name].denoiser, family.model)
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)
