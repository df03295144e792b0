"""Faces: from an image or a `.npy` to the embedding that conditions.

Follows InfiniteYou (pipelines/pipeline_infu_flux.py): detection at 640, then 320, then 160 pixels,
the largest face wins, aligned to 112 x 112 by its five keypoints, embedded and L2-normalised.
"""

import re
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Float, UInt8

from stepscope.hooks.errors import StepscopeError
from stepscope.hooks.paths import beside
from stepscope.probes.pictures import SUFFIXES, read_picture
from stepscope.probes.places import located
from stepscope.probes.recognisers import Encode, aligned, load_detector, load_encoder
from stepscope.probes.weights import WeightsError

DETECTION_SIZES = (640, 320, 160)
RAW = "face_embedding_raw"
"""In `Face.given`, the embedding (512,) as the encoder gave it, which is not of unit norm."""

UNIT = "face_embedding"
"""In `Face.given`, the unit-norm embedding (512,) by the adapter's own encoder; its name in a `.npz`."""


class FaceError(StepscopeError):
    """A face that is not there, has no name of its own, or is not found in its image."""


@dataclass(frozen=True)
class Face:
    """What adapters read of one file of `faces`: its name in the run, and where a face was found in it.

    embedding: unit norm; NaN where no face was looked for. crop: aligned RGB, None for an embedding. found:
    see `Finder.find`, for the run's provenance. seconds: finding and embedding it. given: what an adapter
    reads besides. picture: RGB as an image encoder sees it, None where it was not read.
    """

    name: str
    embedding: Float[np.ndarray, "512"]
    crop: UInt8[np.ndarray, "112 112 3"] | None
    found: dict[str, Any]
    seconds: float
    given: Mapping[str, np.ndarray] = field(default_factory=dict)
    picture: UInt8[np.ndarray, "224 224 3"] | None = None


def joined(first: Face | None, second: Face) -> Face:
    """What two adapters read of one file; the embedding is the first one's, in `given` each has its own."""
    if first is None:
        return second
    known = np.isfinite(first.embedding).all()
    return replace(
        first if known else second,
        found={**second.found, **first.found},
        seconds=first.seconds + second.seconds,
        given={**second.given, **first.given},
        picture=first.picture if first.picture is not None else second.picture,
    )


def face_files(names: Sequence[str], word: str = "faces") -> dict[str, Path]:
    """Files by the name that they have in a run: the stem, or the whole path where stems collide.

    names: images, `.npy` files, or folders, of which every image is taken that is not hidden. word: the
    setting that names them. Raises FaceError for what does not exist, folders without images and names
    that are not Unicode.
    """
    paths: list[Path] = []
    for name in names:
        path = located(name)
        if path.is_dir():
            inside = [f for f in sorted(path.iterdir()) if _is_image(f)]
            if not inside:
                raise FaceError(f"{word}: folder {name!r} holds no image ({', '.join(SUFFIXES)})")
            paths += inside
        elif path.is_file():
            paths.append(path)
        else:
            raise FaceError(f"{word}: no file or folder {name!r}{beside(path)}")
    for path in paths:
        if any("\ud800" <= letter <= "\udfff" for letter in str(path)):
            raise FaceError(f"{word}: the name of {str(path)!r} is not UTF-8: rename it")
    stems = [path.stem for path in paths]
    named = {p.stem if stems.count(p.stem) == 1 else str(p): p for p in paths}
    if len(named) != len(paths):
        raise FaceError(f"{word}={list(names)} names one file twice")
    return named


def person(name: str) -> str:
    """The person that a file's or face's name stands for: the name without a number at its end."""
    return re.sub(r"_\d+$", "", name)


def _is_image(path: Path) -> bool:
    """By its name; macOS lays a hidden `._name.jpg`, which is no image, beside what it copies."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def is_embedding(file: str | Path) -> bool:
    """Whether a file of `faces` holds numbers and no picture."""
    return str(file).lower().endswith((".npy", ".npz"))


def arrays_of(path: Path, names: Sequence[str], what: str) -> dict[str, np.ndarray]:
    """Those arrays of a `.npz` that are there, in float32; a `.npy` is the first.

    Raises FaceError, which begins with `what`, for a file that cannot be read and for other than real
    numbers that are finite.
    """
    try:
        loaded = np.load(path)
        whole = {names[0]: loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
    except (OSError, ValueError, EOFError, BadZipFile, zlib.error) as error:
        raise FaceError(f"{str(path)!r} cannot be read as {what}") from error
    found = {name: whole[name] for name in names if name in whole}
    for name, array in found.items():
        if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
            raise FaceError(f"{str(path)!r} is not {what}: {name} holds other than finite numbers")
    return {name: array.astype(np.float32) for name, array in found.items()}


def read_embedding(name: str, path: Path, *, raw: bool = False) -> Face:
    """A face given as its embedding of shape (512,), normalised as InfiniteYou does.

    A `.npy`, or a `.npz` with `face_embedding`, beside which stands what other adapters read. raw: keep it
    as it is too, in `given[RAW]`. Raises FaceError for another form.
    """
    embedding = arrays_of(path, [UNIT], "an embedding of numbers").get(UNIT)
    if embedding is None:
        raise FaceError(
            f"{path} has no {UNIT} of shape (512,): name a photo, a .npy, or a .npz with it"
        )
    if embedding.shape != (512,) or not embedding.any():
        raise FaceError(f"{path} is not a finite embedding of shape (512,): {embedding.shape}")
    given = embedding
    norm = np.linalg.norm(embedding)
    if abs(norm - 1) > 1e-6:  # one that is normalised keeps its bits
        embedding = embedding / norm
    kept = {RAW: given} if raw else {UNIT: embedding}
    return Face(name, embedding, None, {"source": "embedding"}, 0.0, kept)


class Finder:
    """Finds the largest face; loads the detector, an insightface pack, at the first image.

    pack: by name under `root`, or by folder.
    """

    def __init__(self, pack: str, root: str, device: str) -> None:
        self._pack, self._root, self._device = pack, root, device
        self._detector: Any = None

    def load(self) -> None:
        """Load the detector now, so that finding has its own time. Raises WeightsError."""
        if self._detector is None:
            self._detector = load_detector(self._pack, self._root, self._device)

    def find(
        self, image: UInt8[np.ndarray, "row column 3"], source: str
    ) -> tuple[Float[np.ndarray, "5 2"], dict[str, Any]]:
        """Keypoints (x, y) of the largest face of a BGR image, and where it was found, as JSON values.

        Pixels are those of `image`, of which `picture` is (width, height); faces: how many there are.
        Raises FaceError, which
        names `source`, if there is no face, and WeightsError.
        """
        self.load()
        face, count, size = largest_face(self._detector, image, source)
        return face.kps, {
            "faces": count,
            "box": face.bbox.tolist(),
            "keypoints": face.kps.tolist(),
            "score": float(face.det_score),
            "picture": [image.shape[1], image.shape[0]],
            "detection_size": size,
            "detector": Path(self._detector.det_model.model_file).name,
        }


class FaceReader:
    """Finds and embeds faces; loads the encoder at the first image.

    encoder: see `load_encoder`. raw: keep the embedding as the encoder gives it, in `given[RAW]`, and not
    the one of unit norm in `given[UNIT]`.
    """

    def __init__(self, finder: Finder, encoder: str, device: str, *, raw: bool = False) -> None:
        self._finder, self._encoder, self._device, self._raw = finder, encoder, device, raw
        self._encode: Encode | None = None

    def read(self, name: str, path: Path) -> Face:
        """The face in an image, a `.npy` or a `.npz`. Raises FaceError, PictureError or WeightsError."""
        if is_embedding(path):
            return read_embedding(name, path, raw=self._raw)
        image = np.asarray(read_picture(path, "face"))[:, :, ::-1].copy()
        self._finder.load()
        if self._encode is None:
            self._encode = load_encoder(self._encoder, self._device, unit=not self._raw)
        start = time.perf_counter()
        keypoints, found = self._finder.find(image, str(path))
        crop = aligned(image, keypoints)
        embedding = self._encode(crop)
        seconds = time.perf_counter() - start
        given = {RAW if self._raw else UNIT: embedding}
        embedding = embedding / np.linalg.norm(embedding) if self._raw else embedding
        return Face(name, embedding, crop[:, :, ::-1].copy(), found, seconds, given)


@runtime_checkable
class Reads(Protocol):
    """Who reads files of `faces`."""

    def read(self, name: str, path: Path) -> Face: ...


def read_all(reader: Reads, files: Mapping[str, Path]) -> dict[str, Face]:
    """Every face by its name. Raises one FaceError for all that cannot be read, and WeightsError."""
    found, wrong = {}, []
    for name, path in files.items():
        try:
            found[name] = reader.read(name, path)
        except WeightsError:
            raise
        except StepscopeError as error:
            wrong.append(str(error))
    if wrong:
        raise FaceError("; ".join(wrong))
    return found


def largest_face(detector: Any, image: np.ndarray, source: str) -> tuple[Any, int, int]:
    """The largest face by box area, how many there are, and the detection size that found them.

    Sizes are tried from large to small.
    """
    short, long = sorted(image.shape[:2])
    for size in DETECTION_SIZES:
        if size * short < long:  # no pixel would be left of the shorter side
            continue
        detector.prepare(ctx_id=0, det_size=(size, size))
        faces = detector.get(image)
        if faces:
            return max(faces, key=lambda f: np.prod(f.bbox[2:] - f.bbox[:2])), len(faces), size
    tried = ", ".join(map(str, DETECTION_SIZES))
    raise FaceError(f"no face found in {source} (detection sizes tried: {tried})")
