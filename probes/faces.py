"""Faces: from an image or a `.npy` to the embedding that conditions.

Follows InfiniteYou (pipelines/pipeline_infu_flux.py): detection at 640, then 320, then 160 pixels,
the largest face wins, aligned to 112 x 112 by its five keypoints, embedded and L2-normalised.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from hooks.errors import StepscopeError
from probes.recognisers import Encode, aligned, load_detector, load_encoder

DETECTION_SIZES = (640, 320, 160)
IMAGE_FILES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


class FaceError(StepscopeError):
    """An image that cannot be read, or in which no face is found."""


@dataclass(frozen=True)
class Face:
    """One face: its name in the run, embedding, and where it was found.

    embedding: unit norm. crop: aligned RGB, None for a `.npy`. found: box, keypoints, score,
    detection size and the detector's file, for the run's provenance. seconds: finding and embedding it.
    """

    name: str
    embedding: Float[np.ndarray, "512"]
    crop: UInt8[np.ndarray, "112 112 3"] | None
    found: dict[str, Any]
    seconds: float


def face_files(names: Sequence[str]) -> dict[str, Path]:
    """Files by the name that they have in a run: the stem, or the whole path where stems collide.

    names: images, `.npy` files, or folders, of which every image is taken. Raises FaceError for
    what does not exist and for folders without images.
    """
    paths: list[Path] = []
    for name in names:
        path = Path(name).expanduser()
        if path.is_dir():
            inside = [f for f in sorted(path.iterdir()) if f.suffix.lower() in IMAGE_FILES]
            if not inside:
                raise FaceError(f"faces: folder {name!r} holds no image")
            paths += inside
        elif path.is_file():
            paths.append(path)
        else:
            raise FaceError(f"faces: no file or folder {name!r}")
    stems = [path.stem for path in paths]
    named = {p.stem if stems.count(p.stem) == 1 else str(p): p for p in paths}
    if len(named) != len(paths):
        raise FaceError(f"faces={list(names)} names one file twice")
    return named


def read_embedding(name: str, path: Path) -> Face:
    """A face given as its embedding: `.npy` of shape (512,), normalised as InfiniteYou does."""
    try:
        embedding = np.load(path).astype(np.float32)
    except (OSError, ValueError, EOFError) as error:
        raise FaceError(f"{str(path)!r} cannot be read as an embedding of numbers") from error
    if embedding.shape != (512,) or not np.isfinite(embedding).all() or not embedding.any():
        raise FaceError(f"{path} is not a finite embedding of shape (512,): {embedding.shape}")
    norm = np.linalg.norm(embedding)
    if abs(norm - 1) > 1e-6:  # one that is normalised keeps its bits
        embedding = embedding / norm
    return Face(name, embedding, None, {"source": "embedding"}, 0.0)


class FaceReader:
    """Finds and embeds faces; loads the detector and the encoder at the first image.

    detector: an insightface pack, by name under `root` or by folder; encoder: see `load_encoder`.
    """

    def __init__(self, detector: str, root: str, encoder: str, device: str) -> None:
        self._detector, self._root, self._encoder, self._device = detector, root, encoder, device
        self._loaded: tuple[Any, Encode] | None = None

    def read(self, name: str, path: Path) -> Face:
        """The face in an image file or a `.npy` embedding. Raises FaceError or WeightsError."""
        if path.suffix == ".npy":
            return read_embedding(name, path)
        image = read_image(path)
        if self._loaded is None:
            self._loaded = (
                load_detector(self._detector, self._root, self._device),
                load_encoder(self._encoder, self._device),
            )
        detector, encode = self._loaded
        start = time.perf_counter()
        face, size = largest_face(detector, image, str(path))
        crop = aligned(image, face.kps)
        embedding = encode(crop)
        found = {
            "box": face.bbox.tolist(),
            "keypoints": face.kps.tolist(),
            "score": float(face.det_score),
            "detection_size": size,
            "detector": Path(detector.det_model.model_file).name,
        }
        return Face(name, embedding, crop[:, :, ::-1].copy(), found, time.perf_counter() - start)


def read_image(path: Path) -> UInt8[np.ndarray, "row column 3"]:
    """An image file as BGR pixels, upright by its EXIF orientation. Raises FaceError."""
    try:
        with Image.open(path) as image:
            rgb = ImageOps.exif_transpose(image).convert("RGB")
    except FileNotFoundError as error:
        raise FaceError(f"no image {str(path)!r}") from error
    except (UnidentifiedImageError, OSError) as error:
        raise FaceError(f"{str(path)!r} cannot be read as an image") from error
    return np.asarray(rgb)[:, :, ::-1].copy()


def largest_face(detector: Any, image: np.ndarray, source: str) -> tuple[Any, int]:
    """The largest face by box area and the detection size that found it, tried from large to small."""
    short, long = sorted(image.shape[:2])
    for size in DETECTION_SIZES:
        if size * short < long:  # no pixel would be left of the shorter side
            continue
        detector.prepare(ctx_id=0, det_size=(size, size))
        faces = detector.get(image)
        if faces:
            return max(faces, key=lambda f: np.prod(f.bbox[2:] - f.bbox[:2])), size
    tried = ", ".join(map(str, DETECTION_SIZES))
    raise FaceError(f"no face found in {source} (detection sizes tried: {tried})")
