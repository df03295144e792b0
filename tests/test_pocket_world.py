"""The procedural world: what is drawn is what was asked for, and every number shows."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from stepscope.pocket import grammar
from stepscope.pocket.alignment import norm_crop
from stepscope.pocket.portraits import PORTRAITS, sittings
from stepscope.pocket.world import (
    ATTRIBUTES,
    IDENTITY,
    NUISANCE,
    SIZE,
    attributes_row,
    render,
    sample_attributes,
    sample_identities,
    sample_nuisance,
)


def draw(identity: torch.Tensor, **named: str) -> tuple[torch.Tensor, torch.Tensor]:
    """People under one prompt, with no nuisance."""
    n = len(identity)
    return render(identity, attributes_row(**named).expand(n, -1), torch.zeros(n, len(NUISANCE)))


def test_renders_are_pictures_and_keypoints_lie_in_them():
    generator = torch.Generator().manual_seed(0)
    images, points = render(
        sample_identities(12, 1), sample_attributes(12, generator), sample_nuisance(12, generator)
    )
    assert images.shape == (12, 3, SIZE, SIZE)
    assert points.shape == (12, 5, 2)
    assert images.isfinite().all()
    assert images.min() >= 0
    assert images.max() <= 1
    assert points.min() > 2
    assert points.max() < SIZE - 3
    left, right, nose, mouth_left, mouth_right = points.unbind(1)
    assert (left[:, 0] < right[:, 0]).all()
    assert (mouth_left[:, 0] < mouth_right[:, 0]).all()
    assert (left[:, 1] < nose[:, 1]).all()
    assert (nose[:, 1] < mouth_left[:, 1]).all()


def test_a_row_is_drawn_alike_alone_and_in_company():
    generator = torch.Generator().manual_seed(3)
    given_ = (
        sample_identities(4, 2), sample_attributes(4, generator), sample_nuisance(4, generator),
    )  # fmt: skip
    images, points = render(*given_)
    alone, lone_points = render(*(g[2:3] for g in given_))
    torch.testing.assert_close(alone[0], images[2], atol=1e-5, rtol=0)
    torch.testing.assert_close(lone_points[0], points[2], atol=1e-4, rtol=0)


def test_the_pupil_is_where_the_keypoint_says():
    images, points = draw(sample_identities(8, 4), clothing="t-shirt")
    places = (points[:, :2] + 0.5) / SIZE * 2 - 1
    seen = torch.nn.functional.grid_sample(images, places[:, None], align_corners=False)
    assert seen.mean(1).max() < 0.25


def test_every_identity_number_shows_in_the_aligned_face():
    people = sample_identities(4, 5)
    images, points = draw(people, clothing="t-shirt")
    faces = norm_crop(images, points)
    for i, name in enumerate(IDENTITY):
        moved = people.clone()
        moved[:, i] = (moved[:, i] + 0.5) % 1
        other = norm_crop(*draw(moved, clothing="t-shirt"))
        visible = ((other - faces).abs().amax(1) > 0.1).float().mean()
        assert visible > 0.004, name


@pytest.mark.parametrize("key", ATTRIBUTES)
def test_every_value_of_an_attribute_shows(key):
    person = sample_identities(1, 6)
    pictures = [draw(person, **{"shot": "half-body", key: value})[0] for value in ATTRIBUTES[key]]
    for i, first in enumerate(pictures):
        for second in pictures[:i]:
            assert (first - second).abs().mean() > 0.004


def test_seeds_repeat_and_photo_share_makes_photos():
    assert torch.equal(sample_identities(5, 9), sample_identities(5, 9))
    assert not torch.equal(sample_identities(5, 9), sample_identities(5, 10))
    rows = sample_attributes(64, torch.Generator().manual_seed(0), photo_share=1.0)
    assert (rows[:, list(ATTRIBUTES).index("style")] == 0).all()


def test_a_value_outside_the_world_is_named():
    with pytest.raises(ValueError, match="scene='moon'"):
        attributes_row(scene="moon")


def test_portraits_are_the_sittings_they_claim_to_be():
    people, attributes, _ = sittings()
    files = sorted(PORTRAITS.glob("*.png"))
    assert [f.stem for f in files] == [f"{i // 4:02d}_{i % 4}" for i in range(len(people))]
    assert len(people) // 4 >= 24
    assert torch.equal(
        attributes[0], attributes_row(shot="portrait", clothing="t-shirt", colour="white")
    )


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_every_sentence_is_known_and_fits_the_tokenizers(data):
    row = [data.draw(st.integers(0, len(v) - 1)) for v in ATTRIBUTES.values()]
    said = [data.draw(st.booleans()) for _ in ATTRIBUTES]
    text = grammar.sentence(row, said)
    assert grammar.unknown_words(text) == []
    assert len(text.split()) <= grammar.TOKENS - 2


def test_simple_sentences_and_unknown_words():
    photo = [ATTRIBUTES["shot"].index("portrait"), 0, 0, 0, 0, 0, 0]
    assert (
        grammar.sentence(photo, [True, False, False, False, False, True, False]) == grammar.SIMPLEST
    )
    assert grammar.sentence(photo, [False] * 7) == "a person"
    assert grammar.unknown_words("A portrait, of a Zebra at the beach.") == ["zebra"]
    assert all(not grammar.unknown_words(p) for level in grammar.COMPLEXITY.values() for p in level)


def test_saved_tokenizers_read_alike_whatever_the_case_and_commas(tmp_path):
    grammar.save_tokenizers(tmp_path)
    for folder, pad in (("tokenizer", "eos"), ("tokenizer_2", "pad")):
        tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path / folder)
        plain = tokenizer("portrait photo of a person at the beach").input_ids
        assert tokenizer("Portrait photo, of a person at the BEACH.").input_ids == plain
        assert tokenizer.unk_token_id in tokenizer("a zebra").input_ids
        padded = tokenizer("a person", padding="max_length", max_length=8).input_ids
        assert padded[-1] == getattr(tokenizer, f"{pad}_token_id")
        words = set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens)
        assert words == set(grammar.VOCABULARY)
    clip = PreTrainedTokenizerFast.from_pretrained(tmp_path / "tokenizer")
    assert clip.eos_token_id == max(clip.get_vocab().values())
