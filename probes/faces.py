"""Faces: from an image or a `.npy` to the embedding that conditions. The only door to insightface.

Follows InfiniteYou (pipelines/pipeline_infu_flux.py): detection at 640, then 320, then 160 pixels,
the largest face wins, aligned to 112 x 112 by its five keypoints, embedded and L2-normalised.
"""

import contextlib
import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from insightface.app import FaceAnalysis
from insightface.model_zoo import get_model
from insightface.utils.face_align import norm_crop
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from hooks.errors import StepscopeError
from probes.irse50 import IRSE50
from probes.weights import WeightsError, explained, first_line, pack_folder

DETECTION_SIZES = (640, 320, 160)
IMAGE_FILES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")

Encode = Callable[[np.ndarray], np.ndarray]
"""From an aligned BGR crop (112, 112, 3) uint8 to a unit-norm embedding (512,) float32."""
EncodeMany = Callable[[Sequence[np.ndarray]], np.ndarray]
"""From aligned BGR crops, (112, 112, 3) uint8 each, to unit-norm embeddings (crop, 512) float32."""


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
        crop = norm_crop(image, face.kps)
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


def load_detector(name: str, root: str, device: str) -> Any:
    """insightface's FaceAnalysis with the pack's detector alone. Raises WeightsError."""
    return _load_pack(name, root, device, ["detection"], "adapter.detector")


def _load_pack(name: str, root: str, device: str, modules: list[str], what: str) -> Any:
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # insightface prints where it loads from
            return FaceAnalysis(
                name, root=root, allowed_modules=modules, providers=_providers(device)
            )
    except Exception as error:  # onnxruntime's have no base class of their own
        if pack_folder(name, root) is not None and not isinstance(error, AssertionError):
            raise WeightsError(
                f"{what}: insightface pack {name!r} cannot be read: {first_line(error)}"
            ) from error
        raise WeightsError(
            f"{what}: insightface pack {name!r} is not under {root!r} and was not "
            "downloaded: put its .onnx files into <root>/models/<name>/ or name its folder"
        ) from error


def load_encoder(path: str, device: str) -> Encode:
    """The conditioning recogniser. Raises WeightsError as `load_encoder_of_many` does."""
    encode = load_encoder_of_many(path, device, "adapter.encoder")
    return lambda crop: encode([crop])[0]


def load_encoder_of_many(path: str, device: str, what: str) -> EncodeMany:
    """A recogniser from IR-SE50's published `.pth` or an ArcFace-form `.onnx`.

    Raises WeightsError, which begins with `what`, if the file is missing, of another kind, or does
    not load strictly.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise WeightsError(f"{what}: no file {path!r}")
    if file.suffix == ".onnx":
        with explained(path, what):
            model: Any = get_model(str(file), providers=_providers(device))
        if model is None or model.taskname != "recognition":
            raise WeightsError(f"{what}={path!r} is not a recogniser in ArcFace's form")
        return _encoder_of(model)
    if file.suffix != ".pth":
        raise WeightsError(f"{what}={path!r} is neither a .pth (IR-SE50) nor an .onnx")
    network = IRSE50()
    try:
        network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    except (RuntimeError, TypeError, EOFError, UnpicklingError) as error:
        raise WeightsError(f"{what}={path!r} is not an IR-SE50 state dict") from error
    network.eval().requires_grad_(False).to(device)

    def encode(crops: Sequence[np.ndarray]) -> np.ndarray:
        pixels = torch.from_numpy(np.stack(crops)).to(device).permute(0, 3, 1, 2).float()
        return network(pixels / 127.5 - 1).cpu().numpy()

    return encode


def load_judge(pack: str, root: str, device: str, size: int) -> tuple[Any, EncodeMany]:
    """A pack's detector, pinned to `size` x `size` pixels, and its recogniser.

    pack: by name under `root` or by folder. Raises WeightsError if it is not there or lacks either.
    """
    app = _load_pack(pack, root, device, ["detection", "recognition"], "recognisers")
    if "recognition" not in app.models:
        raise WeightsError(f"recognisers: insightface pack {pack!r} has no recognition model")
    app.prepare(ctx_id=0, det_size=(size, size))
    return app.det_model, _encoder_of(app.models["recognition"])


def largest_keypoints(detector: Any, image: np.ndarray) -> Float[np.ndarray, "5 2"] | None:
    """Five keypoints (x, y) in pixels of the largest face of a BGR image, None if there is none."""
    boxes, keypoints = detector.detect(image)
    if not len(boxes):
        return None
    sides = boxes[:, 2:4] - boxes[:, :2]
    return keypoints[int(np.argmax(sides[:, 0] * sides[:, 1]))]


def aligned(image: np.ndarray, keypoints: np.ndarray) -> UInt8[np.ndarray, "112 112 3"]:
    """insightface's five-point alignment of an image to 112 x 112."""
    return norm_crop(image, keypoints)


def _encoder_of(model: Any) -> EncodeMany:
    """insightface's ArcFaceONNX on many crops; one by one where the file has a batch of one."""
    one_by_one = model.input_shape[0] == 1

    def encode(crops: Sequence[np.ndarray]) -> np.ndarray:
        batches = [[crop] for crop in crops] if one_by_one else [list(crops)]
        found = np.concatenate([model.get_feat(batch) for batch in batches])
        return np.stack([vector / np.linalg.norm(vector) for vector in found])

    return encode


def _providers(device: str) -> list[str]:
    return (["CUDAExecutionProvider"] if device.startswith("cuda") else []) + [
        "CPUExecutionProvider"
    ]
