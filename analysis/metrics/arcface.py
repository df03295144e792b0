"""Identity: cosine between the embeddings of the generated and the reference face, by a panel."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from stepscope.analysis.metrics.metric import Metric, Quantity, digests
from stepscope.analysis.metrics.panel import (
    Recogniser,
    detector,
    encoder,
    pack,
    panel,
    pinned,
    place,
    references,
)
from stepscope.probes.backbones import pick_device
from stepscope.probes.recognisers import EncodeMany, aligned, largest_keypoints

NOT_MEASURED, FOUND, NO_FACE, NO_REFERENCE = range(4)
FLAGS = {
    "flag_values": [NOT_MEASURED, FOUND, NO_FACE, NO_REFERENCE],
    "flag_meanings": "not_measured found no_face no_reference",
}
ALIGNMENTS = ("detected", "fixed")
KEYPOINTS = ("left eye", "right eye", "nose", "left of mouth", "right of mouth")
CROPS = 32  # embedded at once
_COSINE = "cosine similarity of the {} to the reference face, under each recogniser; NaN where {}"


@dataclass(frozen=True)
class Recognition(Metric):
    """What both metrics of identity share: the panel and the detector's size.

    recognisers: see `panel.panel`. root: where packs lie by name. det_size: pixels that an image is
    brought to before detection; None is the image's own size in whole 32, from 128 to 640.
    """

    recognisers: Sequence[str] | None = None
    det_size: int | None = None
    root: str = "~/.insightface"
    device: str = "auto"

    def preflight(self) -> None:
        for source in self.recognisers or ():
            place(source, self.root)

    def panel(self, run: xr.Dataset) -> tuple[Recogniser, ...]:
        return panel(run.attrs, self.recognisers, self.root)

    def size(self, run: xr.Dataset) -> int:
        return pinned(self.det_size, (run.sizes["row"], run.sizes["column"]))

    def settings(self, run: xr.Dataset) -> dict[str, Any]:
        # By hash: places on disk decide nothing.
        told = [
            {
                "name": one.name,
                "conditioning": one.conditioning,
                "files": dict(one.files),
                "detector": digests(pack(one.detector, self.root)),
            }
            for one in self.panel(run)
        ]
        return {"recognisers": told, "det_size": self.size(run)}

    def coordinates(self, run: xr.Dataset) -> dict[str, tuple[str, Any]]:
        found = self.panel(run)
        return {
            "recogniser": ("recogniser", [one.name for one in found]),
            "conditioning": ("recogniser", [one.conditioning for one in found]),
        }

    def encoders(self, samples: xr.Dataset) -> list[tuple[Recogniser, EncodeMany, Any]]:
        """Each recogniser with its encoder and detector."""
        where = self.root, pick_device(self.device), self.size(samples)
        return [(one, encoder(one, *where), detector(one, *where)) for one in self.panel(samples)]

    def faces_in(
        self, samples: xr.Dataset, images: np.ndarray
    ) -> list[tuple[Recogniser, EncodeMany, np.ndarray]]:
        """Each recogniser with its encoder, and keypoints (image, 5, 2) of the largest face in BGR images.

        NaN where there is none. A detector that several recognisers share looks once.
        """
        seen: dict[int, np.ndarray] = {}
        for _, _, finder in (panel := self.encoders(samples)):
            if id(finder) not in seen:
                seen[id(finder)] = find(finder, images)
        return [(one, encode, seen[id(finder)]) for one, encode, finder in panel]

    def load(self, run: xr.Dataset) -> None:
        self.encoders(run)

    @abstractmethod
    def __call__(self, samples: xr.Dataset) -> dict[str, np.ndarray]: ...


@dataclass(frozen=True)
class ArcfaceFinal(Recognition):
    """Identity of the final images."""

    name: ClassVar[str] = "arcface_final"
    reads: ClassVar[tuple[str, ...]] = ("image", "face_crop", "face_embedding")

    def quantities(self, run: xr.Dataset) -> Mapping[str, Quantity]:
        told = _COSINE.format(
            "final image's largest face", "none was found or there is no reference"
        )
        return {
            "final_similarity": Quantity(("recogniser",), "float32", "1", told, "higher is better"),
            **found_flags("final_found", ("recogniser",), "the final image"),
            "final_keypoints": Quantity(
                ("recogniser", "keypoint", "xy"),
                "float32",
                "pixel",
                "five keypoints of the final image's largest face, left and right as one sees them; "
                "NaN where none was found",
            ),
        }

    def coordinates(self, run: xr.Dataset) -> dict[str, tuple[str, Any]]:
        return {
            **super().coordinates(run),
            "keypoint": ("keypoint", list(KEYPOINTS)),
            "xy": ("xy", ["x", "y"]),
        }

    def __call__(self, samples: xr.Dataset) -> dict[str, np.ndarray]:
        images = bgr(samples["image"].values)
        panel = self.faces_in(samples, images)
        shape = (len(images), len(panel))
        similarity = np.full(shape, np.nan, np.float32)
        found = np.zeros(shape, np.int8)
        keypoints = np.full((*shape, 5, 2), np.nan, np.float32)
        for r, (one, encode, own) in enumerate(panel):
            keypoints[:, r] = own
            reference = references(one, encode, samples)
            found[:, r] = flags(own, reference)
            similarity[:, r] = cosines(encode, images, own, reference)
        return {
            "final_similarity": similarity,
            "final_found": found,
            "final_keypoints": keypoints,
        }


@dataclass(frozen=True)
class Arcface(Recognition):
    """Identity of x0 along the run, with the face found in each image and with the final one's place."""

    name: ClassVar[str] = "arcface"
    reads: ClassVar[tuple[str, ...]] = (
        "decoded",
        "face_crop",
        "face_embedding",
        "final_keypoints",
    )

    def quantities(self, run: xr.Dataset) -> Mapping[str, Quantity]:
        told = _COSINE.format(
            "decoded x0's face",
            "no face was found in this image (alignment detected) or in the final one (fixed), or "
            "there is no reference. detected: aligned by the image's own keypoints; fixed: by the "
            "final image's, so that early steps can be compared",
        )
        return {
            "similarity": Quantity(
                ("step", "recogniser", "alignment"), "float32", "1", told, "higher is better"
            ),
            **found_flags("found", ("step", "recogniser"), "the step's decoded x0"),
        }

    def coordinates(self, run: xr.Dataset) -> dict[str, tuple[str, Any]]:
        return {**super().coordinates(run), "alignment": ("alignment", list(ALIGNMENTS))}

    def __call__(self, samples: xr.Dataset) -> dict[str, np.ndarray]:
        decoded = samples["decoded"].values
        n, steps = decoded.shape[:2]
        images = bgr(decoded.reshape(n * steps, *decoded.shape[2:]))
        panel = self.faces_in(samples, images)
        similarity = np.full((n * steps, len(panel), len(ALIGNMENTS)), np.nan, np.float32)
        found = np.zeros((n * steps, len(panel)), np.int8)
        for r, (one, encode, own) in enumerate(panel):
            final = samples["final_keypoints"].values[:, r].repeat(steps, axis=0)
            reference = references(one, encode, samples).repeat(steps, axis=0)
            found[:, r] = flags(own, reference)
            for a, keypoints in enumerate((own, final)):
                similarity[:, r, a] = cosines(encode, images, keypoints, reference)
        return {
            "similarity": similarity.reshape(n, steps, *similarity.shape[1:]),
            "found": found.reshape(n, steps, -1),
        }


def found_flags(name: str, dims: tuple[str, ...], image: str) -> dict[str, Quantity]:
    """Whether a face was found in an image, which is named in words: why not, and as yes or no."""
    told = f"whether a face was found in {image}"
    yes = f"{told}; false also where none was looked for: {name} says so"
    return {
        name: Quantity(dims, "int8", "1", told, more=FLAGS),
        f"{name.removesuffix('found')}face_found": Quantity(
            dims, "bool", "1", yes, true_where=(name, FOUND)
        ),
    }


def bgr(images: np.ndarray) -> np.ndarray:
    """RGB images (..., row, column, 3) in OpenCV's channel order."""
    return np.ascontiguousarray(images[..., ::-1])


def find(finder: Any, images: np.ndarray) -> np.ndarray:
    """Keypoints (image, 5, 2) of the largest face in each BGR image, NaN where there is none."""
    found = np.full((len(images), 5, 2), np.nan, np.float32)
    for i, image in enumerate(images):
        keypoints = largest_keypoints(finder, image)
        if keypoints is not None:
            found[i] = keypoints
    return found


def flags(keypoints: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Flags (image,) from keypoints (image, 5, 2) and reference embeddings (image, 512), NaN if missing."""
    face, known = (np.isfinite(v).reshape(len(v), -1).all(1) for v in (keypoints, reference))
    return np.select([~known, ~face], [NO_REFERENCE, NO_FACE], FOUND).astype(np.int8)


def cosines(
    encode: EncodeMany, images: np.ndarray, keypoints: np.ndarray, reference: np.ndarray
) -> np.ndarray:
    """Cosine (image,) of each image's face at its keypoints to its reference; NaN where one is missing."""
    known = np.flatnonzero(np.isfinite(reference).all(1))
    asked = np.full_like(keypoints, np.nan)
    asked[known] = keypoints[known]
    embedded = embeddings(encode, images, asked)
    return (embedded * reference).sum(1)


def embeddings(encode: EncodeMany, images: np.ndarray, keypoints: np.ndarray) -> np.ndarray:
    """Unit-norm embeddings (image, 512) of each image's face at its keypoints; NaN where one is missing."""
    found = np.full((len(images), 512), np.nan, np.float32)
    here = np.flatnonzero(np.isfinite(keypoints).all((1, 2)))
    for rows in np.split(here, range(CROPS, len(here), CROPS)):
        if len(rows):
            found[rows] = encode([aligned(images[i], keypoints[i]) for i in rows])
    return found
