"""What the world can paint is found again to the number; what it cannot is left over."""

import pytest
import torch

from stepscope.pocket import repainting
from stepscope.pocket.faults import displaced
from stepscope.pocket.repainting import gaussian, repainted, structure, unlike
from stepscope.pocket.world import (
    ATTRIBUTES,
    IDENTITY,
    NUISANCE,
    attributes_row,
    paint,
    render,
    sample_identities,
    sample_nuisance,
)


def whole_and_harmed(
    people: torch.Tensor, asked: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures of people, then the same with an eye that slipped; their true keypoints."""
    drift = sample_nuisance(len(people), torch.Generator().manual_seed(2))
    images, points = render(people, asked, drift)
    pulled = torch.zeros(len(people), 2, 128, 128)
    pulled[:, 1] = 10
    rows = torch.arange(128.0)
    away = (rows[:, None] - points[:, :1, 1, None]) ** 2 + (rows - points[:, :1, 0, None]) ** 2
    return torch.cat([images, displaced(images, pulled * (away < 80)[:, None])]), points


def test_a_quarter_of_the_way_tells_a_slipped_eye_from_a_face(monkeypatch):
    monkeypatch.setattr(repainting, "COARSE_STEPS", 10)
    monkeypatch.setattr(repainting, "FINE_STEPS", 15)
    people, asked = sample_identities(1, 6), torch.stack([attributes_row()])
    both, points = whole_and_harmed(people, asked)
    found = repainted(both, asked.repeat(2, 1))
    whole, harmed = unlike(both, asked.repeat(2, 1), found)
    assert harmed > whole + 0.05
    assert (found.identity[:1] - people).abs().median() < 0.05
    assert (found.keypoints[:1] - points).norm(dim=-1).max() < 1.5


@pytest.mark.slow
def test_a_face_is_found_again_and_a_slipped_eye_is_left_over():
    people = sample_identities(2, 5)
    asked = torch.stack([attributes_row(), attributes_row(style="poster", scene="beach")])
    both, points = whole_and_harmed(people, asked)
    asked = asked.repeat(2, 1)
    found = repainted(both, asked)
    whole, harmed = unlike(both, asked, found).chunk(2)
    assert whole.max() < 0.01
    assert harmed.min() > 0.03
    # A beard below its beginning leaves no trace, and other numbers may hide too; most do not.
    error = (found.identity[:2] - people).abs()
    assert error.median() < 0.01
    assert (found.keypoints[:2] - points).norm(dim=-1).max() < 0.5


def test_structure_follows_wang_where_one_picture_is_a_linear_map_of_the_other():
    one = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    mean = one.mean(1, keepdim=True)
    variance = gaussian(mean**2, 1.5) - gaussian(mean, 1.5) ** 2
    for gain, shift in ((1.0, 0.2), (0.4, 0.0), (-1.0, 1.0)):
        wanted = (2 * gain * variance + 0.0009) / ((1 + gain**2) * variance + 0.0009)
        torch.testing.assert_close(structure(one, gain * one + shift), wanted, atol=1e-4, rtol=1e-4)


def test_a_blur_keeps_the_sum_of_light_and_has_the_width_that_was_asked_for():
    point = torch.zeros(1, 1, 41, 41)
    point[..., 20, 20] = 1
    spread = gaussian(point, 2.0)[0, 0]
    away = torch.arange(41.0) - 20
    assert spread.sum() == pytest.approx(1, abs=1e-5)
    assert (spread.sum(0) * away**2).sum() == pytest.approx(4, rel=0.03)


@pytest.mark.parametrize("style", ATTRIBUTES["style"])
def test_every_painting_can_be_followed_back_to_its_numbers(style):
    asked = torch.stack(
        [
            attributes_row(style=style, scene=s, clothing=c, accessory=a)
            for s, c, a in zip(
                ATTRIBUTES["scene"],
                (*ATTRIBUTES["clothing"], "suit"),
                (*ATTRIBUTES["accessory"], "none", "glasses"),
                strict=True,
            )
        ]
    )
    identity = torch.full((len(asked), len(IDENTITY)), 0.5, requires_grad=True)
    nuisance = torch.zeros(len(asked), len(NUISANCE), requires_grad=True)
    paint(identity, asked, nuisance)[0].square().sum().backward()
    for numbers in (identity, nuisance):
        assert numbers.grad is not None
        assert numbers.grad.isfinite().all()
        assert (numbers.grad.abs().amax(0) > 0).float().mean() > 0.7
