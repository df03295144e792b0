"""IP-Adapter, typed as a user types it, gives what diffusers and its authors' code gave."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image
from transformers import CLIPVisionModelWithProjection

from stepscope.probes.adapters.ip_adapter import IPAdapterSettings
from stepscope.probes.models import load
from stepscope.probes.plan import latent_shape, outline
from tests.adapter_words import IP_ADAPTER, picture, unet_words
from tests.pictured import image_encoder
from tests.published import assert_unet_run
from tests.shell import Words, listed, run_command, study_of

CASES: list[dict[str, Any]] = json.loads((IP_ADAPTER / "cases.json").read_text())
PUBLISHED = np.load(IP_ADAPTER / "reference.npz")


def of_case(case: dict[str, Any], folder: Path) -> Words:
    """A published case as a command line."""
    name = case["name"]
    names = "image_embeds", "negative_image_embeds"
    np.savez(folder / "picture.npz", **{key: PUBLISHED[f"{name}/{key}"] for key in names})
    np.save(folder / "noise.npy", PUBLISHED[f"{name}/initial_latents"])
    return unet_words(
        case["base"],
        adapter="ip_adapter",
        adapter__path=IP_ADAPTER / "adapters" / case["adapter"],
        adapter__scale=json.dumps(case["scale"]).replace('"', ""),
        faces=listed(folder / "picture.npz"),
        initial_latents=folder / "noise.npy",
        prompts=listed(case["prompt"]),
        negative_prompt=case.get("negative"),
        steps=case["steps"],
        true_cfg=case["guidance"],
        height=case["height"],
        width=case["width"],
        record__velocity="true",
        out=folder / "run.zarr",
    )


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case["name"])
def published(request, tmp_path_factory) -> tuple[dict[str, Any], xr.Dataset]:
    """A published case, and the run of it."""
    folder = tmp_path_factory.mktemp("published")
    assert run_command(of_case(request.param, folder)) == 0
    return request.param, xr.open_zarr(folder / "run.zarr").load()


def layer_of(block: str) -> str:
    """`up.00.01.00` as diffusers names the attention."""
    kind, *numbers = block.split(".")
    inner = [int(number) for number in numbers]
    outer, (image, layer) = (inner[:1], inner[1:]) if kind != "mid" else ([], inner)
    start = ".".join([f"{kind}_block{'s' if outer else ''}", *map(str, outer)])
    return f"{start}.attentions.{image}.transformer_blocks.{layer}.attn2"


def test_latents_are_the_published_ones(published):
    case, run = published
    assert_unet_run(run, PUBLISHED, case["name"])


def test_it_adds_in_the_published_layers_alone(published):
    case, run = published
    added = run.contribution[0, 0].max("branch")
    on = {layer_of(str(b)) for b, x in zip(added.injection_block.values, added, strict=True) if x}
    assert on == {layer for layer, scale in case["layer_scale"].items() if scale}


def sdxl(folder: Path, **changed: Any) -> Words:
    path = IP_ADAPTER / "adapters" / "ip-adapter_sdxl.bin"
    faces = listed(picture(folder, 0))
    return unet_words("sdxl", adapter="ip_adapter", adapter__path=path, faces=faces, **changed)


@pytest.mark.parametrize(
    ("blocks", "mapping"),
    [
        ("style", "{up: {block_0: [0.0, 0.5, 0.0]}}"),
        pytest.param("layout", "{down: {block_2: [0.0, 0.5]}}", marks=pytest.mark.slow),
        ("style_and_layout", "{up: {block_0: [0.0, 0.5, 0.0]}, down: {block_2: [0.0, 0.5]}}"),
    ],
)
def test_blocks_of_style_are_the_published_scales(blocks, mapping, typed, tmp_path):
    named = sdxl(tmp_path, adapter__blocks=blocks, adapter__scale=0.5, out=tmp_path / "a.zarr")
    spelt = sdxl(tmp_path, adapter__scale=mapping, out=tmp_path / "b.zarr")
    assert (typed(named).status, typed(spelt).status) == (0, 0)
    a, b = (xr.open_zarr(tmp_path / name) for name in ("a.zarr", "b.zarr"))
    np.testing.assert_array_equal(a.final_latents, b.final_latents)


def test_what_it_adds_is_linear_in_its_scale(typed, tmp_path):
    """At the first attention, whose input is the same; of norms, whose text part is the same."""
    found = []
    for scale in (0.25, 0.5, 1.0):
        out = tmp_path / f"{scale}.zarr"
        assert typed(sdxl(tmp_path, adapter__scale=scale, steps=1, out=out)).status == 0
        found.append(float(xr.open_zarr(out).contribution[0, 0, 0, 0]))
    np.testing.assert_allclose(found, np.array([0.25, 0.5, 1.0]) * found[-1], rtol=1e-5)


@pytest.fixture
def encoder(tmp_path) -> Path:
    return image_encoder(tmp_path / "encoder")


@pytest.mark.parametrize(
    ("name", "key"), [("ip-adapter_sd15", "image_embeds"), ("ip-adapter-plus_sd15", "hidden")]
)
def test_a_picture_is_encoded_as_diffusers_encodes_it(name, key, encoder, typed, tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (300, 240, 3), dtype=np.uint8)
    Image.fromarray(colours).save(tmp_path / "style.png")
    words = unet_words(
        "sd15",
        adapter="ip_adapter",
        adapter__path=IP_ADAPTER / "adapters" / f"{name}.bin",
        adapter__encoder=encoder,
        faces=listed(tmp_path / "style.png"),
        out=tmp_path / "run.zarr",
    )
    answer = typed(words)
    assert answer.status == 0, answer.err
    run = xr.open_zarr(tmp_path / "run.zarr").load()
    assert run.image_prompt.shape == (1, 224, 224, 3)
    assert abs(float(run.image_prompt.mean()) - colours[30:270].mean()) < 2

    study = study_of(words)  # the pipeline's own encoder, on the same picture
    files = {"style": tmp_path / "style.png"}
    loaded = load(study, files, latent_shape(outline(study)), 1)
    loaded.pipe.image_encoder = CLIPVisionModelWithProjection.from_pretrained(encoder)
    with torch.no_grad():
        made = loaded.pipe.encode_image(Image.open(files["style"]), "cpu", 1, key == "hidden")
    given = loaded.faces["style"].given
    np.testing.assert_allclose(given["image_embeds"], made[0].numpy(), rtol=0, atol=1e-5)
    np.testing.assert_allclose(given["negative_image_embeds"], made[1].numpy(), rtol=0, atol=1e-5)


WRONG = {
    "blocks": (["adapter.blocks=stlye"], "did you mean 'style'"),
    "blocks of SDXL": (["adapter.blocks=style"], "blocks of SDXL"),
    "both": (["adapter.blocks=style", "adapter.scale={up: 1.0}"], "name them once"),
    "another backbone's": (
        [f"adapter.path={IP_ADAPTER / 'adapters' / 'ip-adapter_sdxl.bin'}"],
        "it is another backbone's adapter",
    ),
    "no adapter": (
        [f"adapter.path={IP_ADAPTER / 'sd15/vae/diffusion_pytorch_model.safetensors'}"],
        "is no IP-Adapter",
    ),
    "a face's": (["adapter.face_id=true"], "no FaceID adapter: adapter.face_id=false"),
    "no encoder": (["adapter.encoder=/no/encoder", "faces=[style.png]"], "no folder '/no/encoder'"),
    "another width": (["faces=[wide.npz]"], "embedded in 7 numbers, and adapter.path reads 36"),
    "a damaged file": (["faces=[cut.npz]"], "cannot be read as embeddings of pictures"),
    "texts": (["faces=[texts.npy]"], "other than finite numbers"),
    "complex numbers": (["faces=[complex.npy]"], "other than finite numbers"),
    "a scale of words": (["adapter.scale={down: abc}"], "finite numbers are wanted"),
    "a scale of nothing": (["adapter.scale={down: null}"], "finite numbers are wanted"),
    "a scale of infinities": (["adapter.scale={down: .inf}"], "finite numbers are wanted"),
    "no picture": (["faces=[]"], "adapter=ip_adapter needs a picture"),
    "not embeddings": (["faces=[face.npy]"], "(image, channel)"),
}


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_are_answered_in_one_line(name, typed, tmp_path):
    np.save(tmp_path / "face.npy", np.zeros((2, 3, 4, 5)))
    Image.new("RGB", (64, 64)).save(tmp_path / "style.png")
    np.savez(tmp_path / "wide.npz", image_embeds=np.ones((1, 7), np.float32))
    np.save(tmp_path / "texts.npy", np.array([["a", "b"]]))
    np.save(tmp_path / "complex.npy", np.ones((1, 36), complex))
    whole = picture(tmp_path, 1).read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    words, told = WRONG[name]
    path = IP_ADAPTER / "adapters" / "ip-adapter_sd15.bin"
    own = unet_words("sd15", adapter="ip_adapter", adapter__path=path)
    answer = typed([*own, f"faces={listed(picture(tmp_path, 0))}", *words])
    assert answer.status == 2
    assert told in answer.line


def test_a_scale_of_zeros_is_off():
    assert not IPAdapterSettings("a", "b", scale={"up": {"block_0": [0.0, 0.0]}}).is_on
    assert IPAdapterSettings("a", "b", scale={"up": {"block_0": [0.0, 1.0]}}).is_on
