"""Identity of edited samples: whose face the final image and x0 at the edited step show."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from stepscope.analysis.metrics.arcface import (
    NOT_MEASURED,
    Recognition,
    bgr,
    cosines,
    find,
    flags,
    found_flags,
)
from stepscope.analysis.metrics.decode import Decode, pictures
from stepscope.analysis.metrics.metric import Quantity
from stepscope.analysis.metrics.panel import pinned, references
from stepscope.analysis.metrics.sharpness import around
from stepscope.probes.interventions.names import CLAMPED

IMAGES = ("final", "clamped")
TOWARD = ("own", "donor")


@dataclass(frozen=True)
class EditedIdentity(Recognition):
    """Similarity of an edited sample's images to its own face and to the donor's, and what else changed.

    final: the image at the end, after the intervention. clamped: x0 of the first edited step, computed
    from the recorded x_t. Both are decoded here and not kept.

    vae: as `decode` has it.
    """

    vae: str | None = None
    name: ClassVar[str] = "edited_identity"
    reads: ClassVar[tuple[str, ...]] = (
        "final_latents", CLAMPED, "face_crop", "face_embedding", "donor_face_crop",
        "donor_face_embedding", "base_image",
    )  # fmt: skip

    def size(self, run: xr.Dataset) -> int:
        rows, columns = (run["base_image"].sizes[axis] for axis in ("row", "column"))
        return pinned(self.det_size, (rows, columns))

    def quantities(self, run: xr.Dataset) -> Mapping[str, Quantity]:
        told = (
            "cosine of the largest face in the edited sample's final image, or in its x0 at the first "
            "edited step from the recorded x_t (clamped), to the sample's own reference face or to the "
            "donor's; NaN where no face was found, and of clamped where it was not kept"
        )
        outside = (
            "root mean square difference to the image of the sample without the edit, 0 to 1, outside the "
            "square around that image's face; of the whole image where no face was found in it"
        )
        return {
            "edited_similarity": Quantity(
                ("edited_image", "recogniser", "toward"), "float32", "1", told
            ),
            **found_flags(
                "edited_found", ("edited_image", "recogniser"), "the edited sample's image"
            ),
            "edited_outside": Quantity((), "float32", "1", outside, "lower is better"),
        }

    def coordinates(self, run: xr.Dataset) -> dict[str, tuple[str, Any]]:
        axes = {"edited_image": ("edited_image", list(IMAGES)), "toward": ("toward", list(TOWARD))}
        return {**super().coordinates(run), **axes}

    def settings(self, run: xr.Dataset) -> dict[str, Any]:
        return {**super().settings(run), "decode": self._decode.settings(run)}

    def load(self, run: xr.Dataset) -> None:
        super().load(run)
        self._decode.load(run)

    @property
    def _decode(self) -> Decode:
        return Decode(self.vae, self.device)

    def __call__(self, samples: xr.Dataset) -> dict[str, np.ndarray]:
        vae, panel = self._decode.autoencoder(samples.attrs), self.encoders(samples)
        n = len(samples["final_latents"])
        similarity = np.full((n, len(IMAGES), len(panel), len(TOWARD)), np.nan, np.float32)
        found = np.full((n, len(IMAGES), len(panel)), NOT_MEASURED, np.int8)
        donors = samples.assign(
            face_crop=samples["donor_face_crop"], face_embedding=samples["donor_face_embedding"]
        )
        outside = np.full(n, np.nan, np.float32)
        for place, name in enumerate(("final_latents", CLAMPED)):
            latents = samples[name].values
            here = np.flatnonzero(np.isfinite(latents).all((1, 2, 3)))
            if not len(here):
                continue
            images = pictures(vae, latents[here])
            seen: dict[int, np.ndarray] = {}
            for r, (one, encode, finder) in enumerate(panel):
                if id(finder) not in seen:
                    seen[id(finder)] = find(finder, bgr(images))
                keypoints = seen[id(finder)]
                for t, people in enumerate((samples, donors)):
                    known = references(one, encode, people)[here]
                    similarity[here, place, r, t] = cosines(encode, bgr(images), keypoints, known)
                    if t == 0:
                        found[here, place, r] = flags(keypoints, known)
            if name == "final_latents":
                finder = panel[0][2]
                outside[here] = outside_face(images, samples["base_image"].values[here], finder)
        return {"edited_similarity": similarity, "edited_found": found, "edited_outside": outside}


def outside_face(images: np.ndarray, before: np.ndarray, finder: Any) -> np.ndarray:
    """Root mean square difference (image,) of images to those before, outside the face before, 0 to 1."""
    difference = ((images.astype(np.float32) - before.astype(np.float32)) / 255) ** 2
    masks, seen = np.ones(before.shape[:3], bool), dict[bytes, np.ndarray]()
    for i, image in enumerate(before):
        key = image.tobytes()
        if key not in seen:
            seen[key] = find(finder, bgr(image[None]))[0]
        if np.isfinite(seen[key]).all():
            masks[(i, *around(seen[key], image.shape[:2]))] = False
    total = (difference.mean(-1) * masks).sum((1, 2))
    return np.sqrt(total / np.maximum(masks.sum((1, 2)), 1))
