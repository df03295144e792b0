"""The picture that a sample is compared with: what its adapter was given, else a photo that is named."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import xarray as xr
from PIL import Image

from stepscope.analysis.interventions import PICTURE
from stepscope.analysis.metrics.metric import Metric, Quantity
from stepscope.analysis.metrics.photos import Photos
from stepscope.hooks.errors import StepscopeError
from stepscope.probes.file_digest import digest
from stepscope.probes.pictures import read_picture

SIDE = 224
"""Pixels of each side of a photo, as CLIP's encoders of IP-Adapters see it."""


@dataclass(frozen=True)
class ReferenceImage(Photos, Metric):
    """The reference image of each sample.

    It is the image prompt that the run holds, and a photo where the run holds none for the sample.
    references: see `Photos`.
    """

    name: ClassVar[str] = "reference_image"
    reads: ClassVar[tuple[str, ...]] = (PICTURE, "done")
    optional: ClassVar[Mapping[str, str]] = {PICTURE: "of image prompts"}
    whole: ClassVar[bool] = True

    def preflight(self) -> None:
        self.files({})

    def quantities(self, run: xr.Dataset) -> Mapping[str, Quantity]:
        told = (
            "the picture that the sample is compared with: the image prompt as the adapter's encoder saw "
            "it, else the named photo, its shorter side brought to 224 pixels and its middle cut out; 0 "
            "where a sample has neither"
        )
        return {self.name: Quantity(("image_row", "image_column", "rgb"), "uint8", "1", told)}

    def coordinates(self, run: xr.Dataset) -> dict[str, tuple[str, Any]]:
        rows, columns = sides(run)
        return {
            "image_row": ("image_row", -np.arange(rows)),
            "image_column": ("image_column", np.arange(columns)),
            "rgb": ("rgb", ["red", "green", "blue"]),
        }

    def settings(self, run: xr.Dataset) -> dict[str, Any]:
        """The photos by hash. Raises StepscopeError where no sample has a reference image."""
        files, people = self.files(run.attrs), self.missing(run)
        used = {name: digest(files[name]) for name in dict.fromkeys(people) if name is not None}
        if not used and not any(has_prompt(run, i) for i in range(run.sizes["sample"])):
            known = dict.fromkeys(filter(None, map(str, run["face"].values)))
            name = next(iter(known), "NAME")
            raise StepscopeError(
                "no sample has a reference image: its adapter was given no picture, or the run does not "
                f"hold it: name one, --reference {name}=PICTURE"
            )
        return {"photos": used}

    def missing(self, run: xr.Dataset) -> list[str | None]:
        """Of each sample without an image prompt the name of its photo, None where it has none either."""
        if not self.files(run.attrs):
            return [None] * run.sizes["sample"]
        lacking = np.array([not has_prompt(run, i) for i in range(run.sizes["sample"])])
        if not lacking.any():
            return [None] * len(lacking)
        return [
            name if here else None for name, here in zip(self.people(run), lacking, strict=True)
        ]

    def __call__(self, samples: xr.Dataset) -> dict[str, np.ndarray]:
        files = self.files(samples.attrs)
        made = np.zeros((samples.sizes["sample"], *sides(samples), 3), np.uint8)
        if PICTURE in samples:
            made[:] = samples[PICTURE].values
        for one, name in zip(made, self.missing(samples), strict=True):
            if name is not None:
                one[:] = seen(str(files[name]), sides(samples))
        return {self.name: made}


def sides(run: xr.Dataset) -> tuple[int, int]:
    """Rows and columns of a reference image."""
    if PICTURE in run:
        return run.sizes["image_row"], run.sizes["image_column"]
    return SIDE, SIDE


def has_prompt(run: xr.Dataset, sample: int) -> bool:
    """Whether the run holds the picture that a sample's adapter was given."""
    return PICTURE in run and bool(run[PICTURE][sample].values.any())


@cache
def seen(photo: str, size: tuple[int, int]) -> np.ndarray:
    """A photo (row, column, rgb) uint8 as CLIP's processor prepares it: resized, its middle cut out."""
    image = read_picture(Path(photo), "references")
    rows, columns = size
    scale = max(rows / image.height, columns / image.width)
    whole = max(columns, int(image.width * scale)), max(rows, int(image.height * scale))
    image = image.resize(whole, Image.Resampling.BICUBIC)
    left, top = (whole[0] - columns) // 2, (whole[1] - rows) // 2
    return np.asarray(image.crop((left, top, left + columns, top + rows)))
