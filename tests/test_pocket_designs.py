"""Looks and hats: what a picture shows of them, what it shares with others, and what a sentence says."""

import pytest
import torch
from diffusers import DDIMScheduler
from safetensors.torch import load_file

from stepscope.pocket import grammar
from stepscope.pocket.process import MODELS
from stepscope.pocket.unet import gallery, image_prompt, layout, reading
from stepscope.pocket.unet.designs import circled
from stepscope.pocket.unet.diffusion import ddim, times_below
from stepscope.pocket.world import (
    NUISANCE,
    attributes_row,
    hats,
    looks,
    render,
    sample_identities,
)

DESIGNS = {"looks": looks, "hats": hats}
SAMPLED = {"looks": looks.sample_looks, "hats": hats.sample_hats}
NAMES = {"looks": looks.LOOK, "hats": hats.HAT}


def painted(what: str, designs: torch.Tensor) -> torch.Tensor:
    """One person in each design."""
    n = len(designs)
    who = sample_identities(1, 4).expand(n, -1)
    plain = attributes_row(style="poster", accessory="glasses").expand(n, -1)
    return render(who, plain, torch.zeros(n, len(NUISANCE)), **{what: designs})[0]


@pytest.mark.parametrize("what", DESIGNS)
def test_a_row_without_a_design_is_painted_as_before(what):
    designs = SAMPLED[what](2, torch.Generator().manual_seed(0))
    designs[1] = torch.nan
    with_one, without = painted(what, designs)
    n = 1
    who, row = sample_identities(1, 4), attributes_row(style="poster", accessory="glasses")[None]
    (before,), _ = render(who, row, torch.zeros(n, len(NUISANCE)))
    assert torch.equal(without, before)
    assert (with_one - before).abs().mean() > 0.02


@pytest.mark.parametrize("what", DESIGNS)
def test_every_number_of_a_design_shows(what):
    middle = torch.full((1, len(NAMES[what])), 0.4)
    moved = middle.repeat(len(NAMES[what]), 1)
    moved += 0.45 * torch.eye(len(moved))
    difference = (painted(what, moved) - painted(what, middle)).abs().mean((1, 2, 3))
    shown = dict(zip(NAMES[what], difference.tolist(), strict=True))
    assert min(shown.values()) > 5e-4, shown


@pytest.mark.parametrize("what", DESIGNS)
def test_numbers_that_go_round_have_no_ends(what):
    of = DESIGNS[what]
    for name in of.CIRCULAR:
        ends = torch.full((2, len(NAMES[what])), 0.4)
        ends[:, NAMES[what].index(name)] = torch.tensor([0.0, 1.0])
        first, last = painted(what, ends)
        torch.testing.assert_close(first, last, atol=2e-4, rtol=0)
        read = circled(ends, NAMES[what], of.CIRCULAR)
        torch.testing.assert_close(read[0], read[1], atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def pictures() -> gallery.Gallery:
    return gallery.paint(MODELS, "all", 40, 3)


@pytest.mark.parametrize("what", DESIGNS)
def test_pictures_that_share_a_design_share_nothing_else(pictures, what):
    rows = pictures.having(what)
    others = pictures.sharing(rows, what)
    mine = getattr(pictures, what)
    assert torch.equal(mine[rows], mine[others])
    assert (rows // gallery.EACH != others // gallery.EACH).all()
    assert 0.2 < len(rows) / len(pictures) < 0.8


def test_pictures_that_share_a_face_are_of_one_person(pictures):
    rows = torch.arange(len(pictures))
    others = pictures.sharing(rows, "faces")
    assert torch.equal(rows // gallery.EACH, others // gallery.EACH)
    assert (rows != others).all()


def test_sentences_name_hats_and_never_looks(pictures):
    tokenizer = grammar.clip_tokenizer(reading.FURTHER_WORDS)
    full = tokenizer.batch_decode(pictures.ids[:, 1], skip_special_tokens=True)
    looked = ~pictures.looks.isnan().any(1)
    hatted = ~pictures.hats.isnan().any(1)
    styles = set(" ".join(grammar.STYLE.values()).split())
    for sentence, look, hat in zip(full, looked.tolist(), hatted.tolist(), strict=True):
        assert sentence.endswith("with a hat") == hat, sentence
        assert bool(styles & set(sentence.split())) != look, sentence


def test_ddim_is_diffusers_own():
    """Where the times are as even as diffusers' own, its scheduler walks the same path."""
    scheduler = DDIMScheduler(**layout.NOISE | {"steps_offset": 0, "set_alpha_to_one": False})
    scheduler.set_timesteps(10)
    times = [int(time) for time in scheduler.timesteps]
    start = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0))

    def predict(x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x) * (1 + time[:, None, None, None] / 1000)

    theirs = start
    for time in times[:-1]:
        noise = predict(theirs, torch.full((2,), time))
        theirs = scheduler.step(noise, time, theirs, return_dict=False)[0]
    torch.testing.assert_close(ddim(predict, start, times), theirs, atol=1e-5, rtol=0)
    assert times_below(900, 9) == times


@pytest.mark.parametrize("name", layout.LAYOUTS)
def test_the_shipped_folder_answers_as_it_was_trained(name):
    """The pipeline's own reading of a prompt, and of the unconditional branch, is what training saw."""
    kind = layout.LAYOUTS[name]
    unet, words = layout.load(MODELS, kind)
    pipe = layout.pipeline(kind).from_pretrained(MODELS / name)
    prompt = "portrait photo of a person with a hat"
    read, nothing = words(reading.token_ids([prompt])), words.nothing(1)
    told = pipe.encode_prompt(
        prompt, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=True
    )
    torch.testing.assert_close(told[0], read.tokens, atol=1e-5, rtol=0)
    torch.testing.assert_close(told[1], nothing.tokens, atol=1e-5, rtol=0)
    if kind.xl:
        torch.testing.assert_close(told[2], read.pooled, atol=1e-5, rtol=0)
    assert pipe.unet.config.in_channels == unet.config["in_channels"] == layout.CHANNELS
    assert pipe.vae_scale_factor * layout.GRID == 128


@pytest.mark.parametrize("name", ["style", "object"])
def test_a_shipped_adapter_is_written_as_it_is_read(name, tmp_path):
    prompt = image_prompt.PROMPTS[name]
    unet, _ = layout.load(MODELS, layout.LAYOUTS[prompt.backbone])
    unet._load_ip_adapter_weights([image_prompt.read(prompt.file(MODELS))])
    image_prompt.write(unet, tmp_path / "again.safetensors", prompt)
    shipped, again = load_file(prompt.file(MODELS)), load_file(tmp_path / "again.safetensors")
    assert shipped.keys() == again.keys()
    assert all(torch.equal(shipped[key], again[key]) for key in shipped)
