"""Images and identity of the readings: with the adapter off, or with another face."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from stepscope.analysis.metrics.arcface import (
    ALIGNMENTS,
    NOT_MEASURED,
    Recognition,
    bgr,
    embeddings,
    flags,
    found_flags,
)
from stepscope.analysis.metrics.decode import Decode, pictures
from stepscope.analysis.metrics.metric import Quantity
from stepscope.analysis.metrics.panel import references
from stepscope.analysis.metrics.vaes import side
from stepscope.analysis.rereads import was_reread

TOWARD = ("own", "other")
PICTURE = ("row", "column", "rgb")


@dataclass(frozen=True)
class DecodeReading(Decode):
    """Images of one reading's latents; black where the sample was not read again.

    along: the axis of the latents after `sample`. description: what the latents are.
    """

    along: ClassVar[str]
    description: ClassVar[str]

    def quantities(self, run: xr.Dataset) -> Mapping[str, Quantity]:
        text = f"{self.description}, decoded by the backbone's VAE, 0 to 255; black where not read again"
        return {f"decoded_{self.reading()}": Quantity((self.along, *PICTURE), "uint8", "1", text)}

    def coordinates(self, run: xr.Dataset) -> dict[str, tuple[str, Any]]:
        return {"rgb": ("rgb", ["red", "green", "blue"]), **off_coordinates(run, self.along)}

    @classmethod
    def reading(cls) -> str:
        """Name of the reading, e.g. `carried`."""
        return cls.name.removeprefix("decode_")

    def __call__(self, samples: xr.Dataset) -> dict[str, np.ndarray]:
        vae = self.autoencoder(samples.attrs)
        latents = samples[self.reads[0]].values
        factor = side(samples.attrs["vae"])
        shape = (*latents.shape[:2], *(n * factor for n in latents.shape[-2:]), 3)
        images = np.zeros(shape, np.uint8)
        for i in np.flatnonzero(was_reread(latents)):
            images[i] = pictures(vae, latents[i])
        return {f"decoded_{self.reading()}": images}


@dataclass(frozen=True)
class DecodeCarried(DecodeReading):
    """Images of x0 with the adapter off for that one evaluation."""

    name: ClassVar[str] = "decode_carried"
    reads: ClassVar[tuple[str, ...]] = ("carried_x0",)
    along: ClassVar[str] = "step"
    description: ClassVar[str] = "x0 at the step with the adapter off for that evaluation"


@dataclass(frozen=True)
class DecodeSwapped(DecodeReading):
    """Images of x0 with another person's face for that one evaluation."""

    name: ClassVar[str] = "decode_swapped"
    reads: ClassVar[tuple[str, ...]] = ("swapped_x0",)
    along: ClassVar[str] = "step"
    description: ClassVar[str] = "x0 at the step with another person's face for that evaluation"


@dataclass(frozen=True)
class DecodeCommitted(DecodeReading):
    """Final images with the adapter off from a step on."""

    name: ClassVar[str] = "decode_committed"
    reads: ClassVar[tuple[str, ...]] = ("committed_latents",)
    along: ClassVar[str] = "off_from"
    description: ClassVar[str] = "final image with the adapter off from step off_from to the end"


@dataclass(frozen=True)
class ReadingIdentity(Recognition):
    """What the identity metrics of readings share: face detection, and cosines by both alignments."""

    def faces(
        self, samples: xr.Dataset, decoded: str, towards: Mapping[str, xr.Dataset]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Cosines (sample, point, recogniser, alignment, toward) and flags (sample, point, recogniser).

        decoded: variable of the images (sample, point, row, column, rgb), black where not read again.
        towards: for each reference a dataset with its face_crop and face_embedding.
        """
        frames = samples[decoded].values
        n, points = frames.shape[:2]
        here = np.flatnonzero(frames.any((1, 2, 3, 4)))
        images = bgr(frames[here].reshape(-1, *frames.shape[2:]))
        panel = self.faces_in(samples, images)
        shape = (n, points, len(panel))
        values = np.full((*shape, len(ALIGNMENTS), len(towards)), np.nan, np.float32)
        found = np.full(shape, NOT_MEASURED, np.int8)
        for r, (one, encode, own) in enumerate(panel):
            final = samples["final_keypoints"].values[here, r].repeat(points, axis=0)
            seen = [embeddings(encode, images, keypoints) for keypoints in (own, final)]
            for t, given in enumerate(towards.values()):
                reference = references(one, encode, given)[here].repeat(points, axis=0)
                for a, embedded in enumerate(seen):
                    values[here, :, r, a, t] = (embedded * reference).sum(1).reshape(-1, points)
                if t == 0:
                    found[here, :, r] = flags(own, reference).reshape(-1, points)
        return values, found


@dataclass(frozen=True)
class ArcfaceCarried(ReadingIdentity):
    """Identity carried by the latents: of x0 from one evaluation with the adapter off."""

    name: ClassVar[str] = "arcface_carried"
    reads: ClassVar[tuple[str, ...]] = (
        "decoded_carried", "face_crop", "face_embedding", "final_keypoints",
    )  # fmt: skip

    def quantities(self, run: xr.Dataset) -> Mapping[str, Quantity]:
        text = (
            "identity carried by the latents: cosine of the face in the decoded x0, the adapter off for "
            "that evaluation at the recorded x_t, to the reference face; as `similarity` otherwise"
        )
        axes = ("step", "recogniser")
        return {
            "carried_similarity": Quantity(
                (*axes, "alignment"), "float32", "1", text, "higher is better"
            ),
            **found_flags(
                "carried_found", axes, "the decoded x0 with the adapter off for that evaluation"
            ),
        }

    def coordinates(self, run: xr.Dataset) -> dict[str, tuple[str, Any]]:
        return {**super().coordinates(run), "alignment": ("alignment", list(ALIGNMENTS))}

    def __call__(self, samples: xr.Dataset) -> dict[str, np.ndarray]:
        values, found = self.faces(samples, "decoded_carried", {"own": samples})
        return {"carried_similarity": values[..., 0], "carried_found": found}


@dataclass(frozen=True)
class ArcfaceSwapped(ReadingIdentity):
    """Similarity of x0 to both people, from one evaluation with another person's face."""

    name: ClassVar[str] = "arcface_swapped"
    reads: ClassVar[tuple[str, ...]] = (
        "decoded_swapped", "face_crop", "face_embedding", "swapped_face_crop",
        "swapped_face_embedding", "final_keypoints",
    )  # fmt: skip

    def quantities(self, run: xr.Dataset) -> Mapping[str, Quantity]:
        text = (
            "cosine of the face in the decoded x0, with another person's face as the adapter's input for "
            "that evaluation at the recorded x_t: own, to the run's reference; other, to that other person"
        )
        axes = ("step", "recogniser", "alignment", "toward")
        return {
            "swapped_similarity": Quantity(axes, "float32", "1", text),
            **found_flags("swapped_found", axes[:2], "the decoded x0 with another person's face"),
        }

    def coordinates(self, run: xr.Dataset) -> dict[str, tuple[str, Any]]:
        axes = {"alignment": ("alignment", list(ALIGNMENTS)), "toward": ("toward", list(TOWARD))}
        return {**super().coordinates(run), **axes}

    def __call__(self, samples: xr.Dataset) -> dict[str, np.ndarray]:
        crop, embedding = samples["swapped_face_crop"], samples["swapped_face_embedding"]
        other = samples.assign(face_crop=crop, face_embedding=embedding)
        values, found = self.faces(samples, "decoded_swapped", {"own": samples, "other": other})
        return {"swapped_similarity": values, "swapped_found": found}


@dataclass(frozen=True)
class ArcfaceCommitted(ReadingIdentity):
    """Committed identity: of the final image with the adapter off from a step on."""

    name: ClassVar[str] = "arcface_committed"
    reads: ClassVar[tuple[str, ...]] = (
        "decoded_committed", "face_crop", "face_embedding", "final_keypoints",
    )  # fmt: skip

    def quantities(self, run: xr.Dataset) -> Mapping[str, Quantity]:
        text = (
            "identity committed: cosine of the final image's largest face to the reference face, the "
            "adapter as recorded before step off_from and off from there; NaN where no face was found"
        )
        axes = ("off_from", "recogniser")
        return {
            "committed_similarity": Quantity(axes, "float32", "1", text, "higher is better"),
            **found_flags(
                "committed_found",
                axes,
                "the final image with the adapter off from step off_from on",
            ),
        }

    def coordinates(self, run: xr.Dataset) -> dict[str, tuple[str, Any]]:
        return {**super().coordinates(run), **off_coordinates(run, "off_from")}

    def __call__(self, samples: xr.Dataset) -> dict[str, np.ndarray]:
        values, found = self.faces(samples, "decoded_committed", {"own": samples})
        return {
            "committed_similarity": values[..., ALIGNMENTS.index("detected"), 0],
            "committed_found": found,
        }


def off_coordinates(run: xr.Dataset, axis: str) -> dict[str, tuple[str, Any]]:
    """Coordinates of the axis `off_from`; empty for other axes and for a run that was not read again."""
    names = [name for name in ("off_from", "off_sigma") if name in run.coords]
    return {name: (axis, run[name].values) for name in names} if axis == "off_from" else {}
