"""What is said of readers' lists: the area under the curve, its interval, and whose face is whose."""

import torch

from stepscope.pocket.by_eye import area, left_over, pictures
from stepscope.pocket.world import SIZE


def test_a_measure_that_ranks_every_broken_face_first_has_an_area_of_one():
    broken = torch.zeros(2, 50, dtype=torch.bool)
    broken[:, 3:40:6] = True
    perfect = broken + 0.1 * torch.rand(2, 50, generator=torch.Generator().manual_seed(0))
    assert area(perfect, broken) == [1.0, 1.0, 1.0]
    assert area(-perfect, broken) == [0.0, 0.0, 0.0]


def test_chance_lies_within_the_interval_of_a_measure_that_knows_nothing():
    generator = torch.Generator().manual_seed(1)
    broken = torch.rand(2, 100, generator=generator) < 0.1
    mean, low, high = area(torch.rand(2, 100, generator=generator), broken)
    assert low < 0.5 < high
    assert low < mean < high
    assert high - low > 0.1


def test_a_face_in_every_grid_of_one_place_counts_as_one():
    """Copies of a grid add no knowledge: the interval stays as wide."""
    generator = torch.Generator().manual_seed(2)
    broken = torch.rand(1, 100, generator=generator) < 0.1
    scores = torch.rand(1, 100, generator=generator) + broken
    assert area(scores.repeat(3, 1), broken.repeat(3, 1)) == area(scores, broken)


def test_two_in_a_hundred_of_the_usual_faces_are_amiss():
    usual = torch.linspace(0, 1, 101)
    told = left_over(usual, usual)
    assert told == {"mean": 0.5, "quartiles": [0.25, 0.5, 0.75], "amiss": 0.02}


def test_grids_are_cut_where_faces_meet():
    faces = pictures("dev")
    assert faces.shape == (100, 3, SIZE, SIZE)
    # White gaps between the faces belong to none of them.
    edges = torch.cat([faces[..., 0], faces[..., -1], faces[..., 0, :], faces[..., -1, :]], -1)
    assert (edges.amin(1) < 0.995).float().mean() > 0.5
    assert (edges.flatten(1).amin(1) < 0.99).all()
