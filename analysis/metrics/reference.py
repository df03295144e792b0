"""Reference faces for a run that does not hold them: an aligned photo of each person.

A run of `stepscope probe` with an adapter holds the face that conditions it. For a run of any other
pipeline the user names the photos.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from stepscope.analysis.metrics.arcface import Recognition
from stepscope.analysis.metrics.chance import load_finder
from stepscope.analysis.metrics.metric import Quantity
from stepscope.analysis.metrics.panel import pack
from stepscope.analysis.metrics.photos import Photos
from stepscope.probes.backbones import pick_device
from stepscope.probes.face_variables import FACE_VARIABLES, SHAPES
from stepscope.probes.file_digest import digest
from stepscope.probes.pictures import read_picture
from stepscope.probes.recognisers import aligned


@dataclass(frozen=True)
class Reference(Photos, Recognition):
    """The reference face of each sample, found by the first recogniser's pack.

    references: see `Photos`. Without photos no sample has a reference, and similarities are NaN.
    """

    name: ClassVar[str] = "reference"
    reads: ClassVar[tuple[str, ...]] = ("done",)
    whole: ClassVar[bool] = True

    def preflight(self) -> None:
        super().preflight()
        self.files({})

    def quantities(self, run: xr.Dataset) -> Mapping[str, Quantity]:
        """None where the run holds its faces."""
        if all(
            name in run and run[name].attrs.get("metric") != self.name for name in FACE_VARIABLES
        ):
            return {}
        long_names = {
            "face_embedding": "unknown: the run does not record a conditioning face",
            "face_crop": "the reference face, aligned to 112 x 112 by its five keypoints; 0 where a "
            "sample has none",
        }
        return {
            name: Quantity(declared.dims[1:], declared.dtype, declared.units, long_names[name])
            for name, declared in FACE_VARIABLES.items()
        }

    def coordinates(self, run: xr.Dataset) -> dict[str, tuple[str, Any]]:
        if not self.quantities(run):
            return {}
        rows, columns, _ = SHAPES["face_crop"]
        sizes = {
            "embedding": SHAPES["face_embedding"][0],
            "crop_row": rows,
            "crop_column": columns,
        }
        axes: dict[str, tuple[str, Any]] = {n: (n, np.arange(size)) for n, size in sizes.items()}
        axes["crop_row"] = ("crop_row", -np.arange(rows))
        return {**axes, "rgb": ("rgb", ["red", "green", "blue"])}

    def size(self, run: xr.Dataset) -> int:
        """Detection size of the photos, in pixels, 0 for each photo's own; no image of the run is read."""
        return self.det_size or 0

    def settings(self, run: xr.Dataset) -> dict[str, Any]:
        """The panel and the photos by hash. Raises StepscopeError where no sample says whom it shows."""
        photos = {name: digest(photo) for name, photo in self.shown(run).items()}
        return {**super().settings(run), "photos": photos}

    def load(self, run: xr.Dataset) -> None:
        self.crops(run)

    def crops(self, run: xr.Dataset) -> dict[str, np.ndarray]:
        """The aligned RGB face of each photo. Raises FaceError for one without a face."""
        detector = str(pack(self.panel(run)[0].detector, self.root))
        finder = load_finder(detector, self.root, pick_device(self.device))
        faces = {}
        for name, photo in self.shown(run).items():
            image = np.asarray(read_picture(photo, "references"))[:, :, ::-1].copy()
            keypoints, _ = finder.find(image, str(photo))
            faces[name] = aligned(image, keypoints)[:, :, ::-1].copy()
        return faces

    def __call__(self, samples: xr.Dataset) -> dict[str, np.ndarray]:
        people, crops = self.people(samples), self.crops(samples)
        found = {
            "face_embedding": np.full((len(people), *SHAPES["face_embedding"]), np.nan, np.float32),
            "face_crop": np.zeros((len(people), *SHAPES["face_crop"]), np.uint8),
        }
        for i, name in enumerate(people):
            if name is not None:
                found["face_crop"][i] = crops[name]
        return {name: found[name] for name in self.quantities(samples)}
