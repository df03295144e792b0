"""Images of measured runs in which a recogniser found no face, counted in words."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from stepscope.analysis.metrics.arcface import FOUND, NO_FACE
from stepscope.analysis.runs import measurements

IMAGES = {"final_found": "final images", "found": "images along the steps"}
"""Variables that say whether a face was found, and of which images."""


def no_face_lines(runs: Iterable[str | Path], metrics: Sequence[str]) -> list[str]:
    """A line for each run, recogniser and kind of image with some image without a face."""
    lines = []
    for path in runs:
        group = measurements(Path(path))
        for name, images in IMAGES.items():
            if name not in group or group[name].attrs.get("metric") not in metrics:
                continue
            flags = np.moveaxis(group[name].values, group[name].dims.index("recogniser"), -1)
            for place, recogniser in enumerate(group["recogniser"].values):
                of = flags[..., place]
                lost = int((of == NO_FACE).sum())
                every = lost + int((of == FOUND).sum())
                if lost:
                    metric = group[name].attrs["metric"]
                    lines.append(
                        f"{path}: {metric}: no face in {lost} of {every} {images} ({recogniser})"
                    )
    return lines
