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
    embeddings,
    flags,
    found_flags,
)
from stepscope.analysis.metrics.decode import Decode
from stepscope.analysis.metrics.kept_pictures import kept_pictures
from stepscope.analysis.metrics.metric import Quantity
from stepscope.analysis.metrics.panel import Recogniser, pinned, references
from stepscope.analysis.metrics.sharpness import around
from stepscope.probes.interventions.names import CLAMPED

IMAGES = ("final", "clamped")
TOWARD = ("own", "donor")


@dataclass(frozen=True)
class EditedIdentity(Recognition):
    """Similarity of an edited sample's images to its own face and to the donor's, and what else changed.

    final: the image at the end, after the intervention. clamped: x0 of the first edited step, computed
    from the recorded x_t. Both are decoded here and not kept.

    vae: as `decode` has it. recognisers: None is the pack that found the run's faces: effects are counted
    by a judge, and the encoder that conditions the run is none.
    """

    vae: str | None = None
    name: ClassVar[str] = "edited_identity"
    reads: ClassVar[tuple[str, ...]] = (
        "final_latents", CLAMPED, "face_crop", "face_embedding", "donor_face_crop",
        "donor_face_embedding", "base_image",
    )  # fmt: skip

    def panel(self, run: xr.Dataset) -> tuple[Recogniser, ...]:
        found = super().panel(run)
        judges = tuple(one for one in found if not one.conditioning)
        return judges if self.recognisers is None and judges else found

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
        vae = self._decode.autoencoder(samples.attrs)
        n, count = len(samples["final_latents"]), len(self.panel(samples))
        similarity = np.full((n, len(IMAGES), count, len(TOWARD)), np.nan, np.float32)
        found = np.full((n, len(IMAGES), count), NOT_MEASURED, np.int8)
        outside = np.full(n, np.nan, np.float32)
        donors = samples.assign(
            face_crop=samples["donor_face_crop"], face_embedding=samples["donor_face_embedding"]
        )
        for place, name in enumerate(("final_latents", CLAMPED)):
            latents = samples[name].values
            here = np.flatnonzero(np.isfinite(latents).all((1, 2, 3)))
            if not len(here):
                continue
            images = bgr(kept_pictures(vae, latents[here]))
            for r, (one, encode, keypoints) in enumerate(self.faces_in(samples, images)):
                seen = embeddings(encode, images, keypoints)
                for t, people in enumerate((samples, donors)):
                    known = references(one, encode, people)[here]
                    similarity[here, place, r, t] = (seen * known).sum(1)
                    if t == 0:
                        found[here, place, r] = flags(keypoints, known)
            if place == 0:
                outside[here] = self.outside(
                    samples, images, bgr(samples["base_image"].values[here])
                )
        return {"edited_similarity": similarity, "edited_found": found, "edited_outside": outside}

    def outside(self, samples: xr.Dataset, images: np.ndarray, before: np.ndarray) -> np.ndarray:
        """Root mean square difference (image,), 0 to 1, to the images before, outside the face in them."""
        places: dict[bytes, int] = {}  # the edits of a sample share one image
        place = np.array([places.setdefault(image.tobytes(), len(places)) for image in before])
        unlike = before[[int(np.argmax(place == k)) for k in range(len(places))]]
        (_, _, keypoints), *_ = self.faces_in(samples, unlike)
        masks = np.ones(unlike.shape[:3], bool)
        for mask, points in zip(masks, keypoints, strict=True):
            if np.isfinite(points).all():
                mask[around(points, mask.shape)] = False
        difference = ((images.astype(np.float32) - before.astype(np.float32)) / 255) ** 2
        masks = masks[place]
        total = (difference.mean(-1) * masks).sum((1, 2))
        return np.sqrt(total / np.maximum(masks.sum((1, 2)), 1))
