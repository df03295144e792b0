"""Whether edited samples obey their prompt: the read-out against its network, CLIP against transformers."""

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

from stepscope.analysis.metrics import kept_pictures
from stepscope.analysis.metrics.decode import Decode, pictures
from stepscope.analysis.metrics.prompt_clip import EditedPromptClip, PromptClip
from stepscope.analysis.metrics.prompt_pocket import EditedPromptPocket, load, named
from stepscope.hooks.errors import StepscopeError
from stepscope.pocket import shipped
from stepscope.pocket.grammar import PHRASES, sentence
from stepscope.pocket.world import ATTRIBUTES
from stepscope.probes.interventions.names import BEFORE
from stepscope.probes.places import located
from stepscope.probes.weights import WeightsError

PROMPTS = ("portrait photo of a person", "poster of a person in a forest with a beanie")


@pytest.fixture
def images() -> np.ndarray:
    """Two shipped portraits (image, row, column, rgb)."""
    files = sorted(Path("pocket/portraits").glob("*.png"))[:2]
    return np.stack([np.asarray(Image.open(f).convert("RGB").resize((128, 128))) for f in files])


def test_the_read_out_finds_what_a_sentence_names():
    rng = np.random.default_rng(0)
    phrases = load(str(located(EditedPromptPocket.readout)))[1]
    assert {k: tuple(v) for k, v in phrases.items()} == PHRASES
    for _ in range(200):
        row = [int(rng.integers(len(values))) for values in ATTRIBUTES.values()]
        said = rng.random(len(row)) < 0.6
        asked = {
            name: {value}
            for (name, value), told in zip(zip(ATTRIBUTES, row, strict=True), said, strict=True)
            # a colour is said with its clothing or not at all
            if told and (name != "colour" or said[[*ATTRIBUTES].index("clothing")])
        }
        assert named(sentence(row, said.tolist()), phrases) == asked


def test_obeyed_is_the_share_of_named_attributes_that_the_network_sees(images):
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    network = shipped.load_attributes().cpu()
    seen = [{n: int(v[i].argmax()) for n, v in zip(ATTRIBUTES, network(pixels), strict=True)}
            for i in range(2)]  # fmt: skip
    shot, style = ATTRIBUTES["shot"].index("portrait"), ATTRIBUTES["style"].index("photo")
    first = ((seen[0]["shot"] == shot) + (seen[0]["style"] == style)) / 2
    poster, forest, beanie = (ATTRIBUTES[k].index(v) for k, v in (
        ("style", "poster"), ("scene", "forest"), ("accessory", "beanie")))  # fmt: skip
    right = [seen[1]["style"] == poster, seen[1]["scene"] == forest, seen[1]["accessory"] == beanie]
    scores = EditedPromptPocket(device="cpu").score(images, PROMPTS)
    np.testing.assert_allclose(scores, [first, sum(right) / 3])
    assert np.isnan(EditedPromptPocket().score(images[:1], ["somebody"])[0])


def test_an_image_of_another_size_is_refused(images):
    with pytest.raises(StepscopeError, match="128 x 128"):
        EditedPromptPocket().score(images[:, :64], PROMPTS)


def test_a_file_that_is_no_read_out_is_refused(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"none")
    with pytest.raises(WeightsError, match="read-out"):
        EditedPromptPocket(readout=str(tmp_path / "a.onnx")).preflight()
    with pytest.raises(WeightsError, match="no file"):
        EditedPromptPocket(readout=str(tmp_path / "b.onnx")).preflight()


def test_clip_sees_what_transformers_prepares(clip, images):
    prompts = ["a b c", "d e f"]
    network, tokenizer = CLIPModel.from_pretrained(clip).eval(), CLIPTokenizer.from_pretrained(clip)
    cut = images[:, 40:70, 40:70]  # of the size that it sees: nothing is resized
    shown = CLIPImageProcessorPil(do_resize=False, do_center_crop=False)(
        list(cut), return_tensors="pt"
    )
    words = tokenizer(prompts, padding=True, return_tensors="pt")
    with torch.no_grad():
        out = network(**words, pixel_values=shown["pixel_values"])
    wanted = torch.nn.functional.cosine_similarity(out.text_embeds, out.image_embeds)
    metric = EditedPromptClip(clip=str(clip), device="cpu")
    np.testing.assert_allclose(metric.score(cut, prompts), wanted, atol=1e-5)
    assert len(metric.score(images, ["a b c d " * 9, "a"])) == 2  # a long prompt is cut


def test_a_run_that_is_no_edit_has_the_same_score_and_nan_without_a_prompt(clip, images):
    prompts = ["a b c", "", "a b c"]
    shown = images[[0, 0, 1]]
    run = xr.Dataset(
        {"image": (("sample", "row", "column", "rgb"), shown)},
        coords={"prompt": ("sample", prompts)},
    )
    found = PromptClip(clip=str(clip), device="cpu")(run)["prompt_clip"]
    wanted = EditedPromptClip(clip=str(clip), device="cpu").score(images, ["a b c"] * 2)
    np.testing.assert_allclose(found[[0, 2]], wanted, atol=1e-6)
    assert np.isnan(found[1])


def test_before_is_the_image_that_was_recorded(images):
    """Edits of one sample share its image: each row still has its own score, and its own prompt's."""
    metric = EditedPromptPocket(device="cpu")
    rows, prompts = [0, 0, 1, 0], [PROMPTS[0], PROMPTS[1], PROMPTS[1], PROMPTS[0]]
    backbone = {"name": "pocket_dev", "path": "pocket/models/flux-dev", "dtype": "float32"}
    about = {"configuration": {"backbone": backbone}}
    latents = np.random.default_rng(0).normal(size=(4, 16, 32, 32)).astype(np.float32)
    run = xr.Dataset(
        {
            "final_latents": (("sample", "channel", "y", "x"), latents),
            "base_image": (("sample", "row", "column", "rgb"), images[rows]),
        },
        coords={"prompt": ("sample", prompts)},
        attrs=about,
    )
    found = metric(run)
    np.testing.assert_array_equal(
        found[metric.variable + BEFORE], metric.score(images[rows], prompts)
    )
    np.testing.assert_array_equal(
        found[metric.variable],
        metric.score(pictures(Decode().autoencoder(about), latents), prompts),
    )


def test_an_image_is_decoded_once_for_all_metrics(monkeypatch):
    vae = Decode().autoencoder(
        {
            "configuration": {
                "backbone": {"name": "a", "path": "pocket/models/flux-dev", "dtype": "float32"}
            }
        }
    )
    latents = np.random.default_rng(1).normal(size=(3, 16, 32, 32)).astype(np.float32)
    expected, decoded = pictures(vae, latents), []

    def counted(vae, latents):
        decoded.append(len(latents))
        return pictures(vae, latents)

    monkeypatch.setattr(kept_pictures, "pictures", counted)
    for rows in ([0, 1], [1, 2], [2, 0]):
        found = kept_pictures.kept_pictures(vae, latents[rows])
        assert (
            np.abs(found.astype(int) - expected[rows]).max() <= 1
        )  # a batch of another size rounds
    assert decoded == [2, 1]
    monkeypatch.setattr(kept_pictures, "LIMIT", expected[0].nbytes)
    kept_pictures.kept_pictures(vae, latents[:2])
    kept_pictures.kept_pictures(vae, latents[:1])
    assert decoded == [2, 1, 1]
