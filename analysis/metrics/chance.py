"""Chance and ceiling of similarity: another person's reference face, another photo of the same person.

Both compare photos under each recogniser; no generated image is involved.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from stepscope.analysis.metrics.arcface import Recognition
from stepscope.analysis.metrics.metric import Quantity
from stepscope.analysis.metrics.panel import SMALLEST, pack, references
from stepscope.probes.backbones import pick_device
from stepscope.probes.faces import FaceError, Finder, face_files, person
from stepscope.probes.file_digest import digest
from stepscope.probes.pictures import read_picture
from stepscope.probes.recognisers import aligned


@dataclass(frozen=True)
class Chance(Recognition):
    """Cosine of each sample's reference face to other people's, and to other photos of that person.

    photos: images and folders of images. A photo shows the person whose name it has, without a number at
    the end: `ann_2.jpg` and `ann_3.jpg` show `ann`, as does the face `ann_1`.
    """

    photos: Sequence[str] = ()
    name: ClassVar[str] = "chance"
    reads: ClassVar[tuple[str, ...]] = ("face_crop", "face_embedding")
    whole: ClassVar[bool] = True

    def preflight(self) -> None:
        super().preflight()
        face_files(self.photos, "photos")

    def size(self, run: xr.Dataset) -> int:
        """Detection size of the photos, in pixels; no image of the run is read."""
        return self.det_size or SMALLEST

    def quantities(self, run: xr.Dataset) -> Mapping[str, Quantity]:
        text = "mean cosine similarity of the reference face to {}, under each recogniser; NaN where {}"
        others = text.format("the other people's of the run", "the run has one person")
        same = text.format("other photos of the same person", "there is no other photo")
        return {
            "chance": Quantity(("recogniser",), "float32", "1", others),
            "ceiling": Quantity(("recogniser",), "float32", "1", same),
        }

    def settings(self, run: xr.Dataset) -> dict[str, Any]:
        faces = sorted(set(run["face"].values.tolist()))
        photos = {
            face: {p.name: digest(p) for p in files} for face, files in self.by_face(faces).items()
        }
        return {**super().settings(run), "photos": photos}

    def by_face(self, faces: Iterable[str]) -> dict[str, list[Path]]:
        """The photos of each face's person, without the one from which the face was taken."""
        files = face_files(self.photos, "photos")
        return {
            face: [f for f in files.values() if person(f.stem) == person(face) and f.stem != face]
            for face in faces
        }

    def __call__(self, samples: xr.Dataset) -> dict[str, np.ndarray]:
        names = samples["face"].values
        faces = list(dict.fromkeys(names.tolist()))
        first = [int(np.argmax(names == face)) for face in faces]
        panel = self.encoders(samples)
        one_each = samples.isel(sample=first)
        found = np.full((2, len(faces), len(panel)), np.nan, np.float32)
        for r, (one, encode, _) in enumerate(panel):
            known = references(one, encode, one_each)
            found[0, :, r] = mean_cosine_to_others(known, [person(face) for face in faces])
            for i, photos in enumerate(self.by_face(faces).values()):
                crops = [c for p in photos if (c := self.crop(one.detector, p)) is not None]
                if crops and np.isfinite(known[i]).all():
                    found[1, i, r] = (encode(crops) @ known[i]).mean()
        at = [faces.index(face) for face in names.tolist()]
        return {"chance": found[0][at], "ceiling": found[1][at]}

    def crop(self, name: str, photo: Path) -> np.ndarray | None:
        """The aligned face (112, 112, bgr) of a photo, found as in `probes.faces`; None without a face.

        name: of the detector's pack.
        """
        finder = load_finder(str(pack(name, self.root)), self.root, pick_device(self.device))
        image = np.asarray(read_picture(photo, "photo"))[:, :, ::-1].copy()
        try:
            keypoints, _ = finder.find(image, str(photo))
        except FaceError:
            return None
        return aligned(image, keypoints)


@cache
def load_finder(folder: str, root: str, device: str) -> Finder:
    """A pack's detector, loaded once."""
    return Finder(folder, root, device)


def mean_cosine_to_others(known: np.ndarray, people: Sequence[str]) -> np.ndarray:
    """Mean cosine (face,) of each unit-norm embedding (face, 512) to other people's; NaN without others.

    people: of each face.
    """
    cosines = known @ known.T
    same = np.array([[a == b for b in people] for a in people])
    apart = np.where(same, np.nan, cosines)
    count = np.isfinite(apart).sum(1)
    with np.errstate(invalid="ignore"):
        return np.where(count > 0, np.nansum(apart, 1) / count, np.nan)
