"""The explorer's page beside a report: a few samples of the runs that the study compares."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import xarray as xr

from stepscope.analysis.explore.save import Saved, save
from stepscope.analysis.explore.source import Source

EXPERIMENTS = ("trajectory", "main")
"""Whose runs are shown: the first of these that the study has. Both are read at every step."""
FACES = 4
NAME = "explore.html"


def excerpt(runs: Mapping[str, Sequence[xr.Dataset]], folder: Path) -> Saved | None:
    """Write the page into the folder; None where the study has none of the experiments.

    runs: the study's runs by experiment, each with its attribute `path`. Of the first two, a sample of each
    of the first faces, of the first prompt and seed: not selected by result.
    """
    compared = next((runs[name] for name in EXPERIMENTS if runs.get(name)), None)
    if compared is None:
        return None
    sources = [Source(run.attrs["path"]) for run in compared[:2]]
    return save(sources, folder / NAME, [first_of_faces(run) for run in compared[:2]])


def first_of_faces(run: xr.Dataset) -> list[int]:
    """The first sample of each of the first faces, as the whole run counts them."""
    found: dict[str, int] = {}
    for face, sample in zip(
        run["face"].values.tolist(), run["sample"].values.tolist(), strict=True
    ):
        found.setdefault(face, sample)
    return list(found.values())[:FACES]
