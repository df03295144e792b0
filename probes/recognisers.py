"""Detectors and recognisers, by pack, `.onnx` or `.pth`. The only door to insightface."""

import contextlib
import io
from collections.abc import Callable, Sequence
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from insightface.app import FaceAnalysis
from insightface.model_zoo import get_model
from insightface.utils.face_align import norm_crop
from jaxtyping import Float, UInt8

from stepscope.probes.irse50 import IRSE50
from stepscope.probes.places import located
from stepscope.probes.weights import WeightsError, explained, first_line, pack_folder

Encode = Callable[[np.ndarray], np.ndarray]
"""From an aligned BGR crop (112, 112, 3) uint8 to an embedding (512,) float32."""
EncodeMany = Callable[[Sequence[np.ndarray]], np.ndarray]
"""From aligned BGR crops, (112, 112, 3) uint8 each, to unit-norm embeddings (crop, 512) float32."""


def load_detector(name: str, root: str, device: str) -> Any:
    """insightface's FaceAnalysis with the pack's detector alone. Raises WeightsError."""
    return _load_pack(name, root, device, ["detection"], "adapter.detector")


def _load_pack(name: str, root: str, device: str, modules: list[str], what: str) -> Any:
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # insightface prints where it loads from
            return FaceAnalysis(
                str(pack_folder(name, root) or name),
                root=root,
                allowed_modules=modules,
                providers=_providers(device),
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


def load_encoder(path: str, device: str, *, unit: bool = True) -> Encode:
    """The conditioning recogniser. Raises WeightsError as `load_encoder_of_many` does."""
    encode = load_encoder_of_many(path, device, "adapter.encoder", unit=unit)
    return lambda crop: encode([crop])[0]


def load_encoder_of_many(path: str, device: str, what: str, *, unit: bool = True) -> EncodeMany:
    """A recogniser from IR-SE50's published `.pth` or an ArcFace-form `.onnx`.

    unit: embeddings of unit norm; else as the `.onnx` gives them, which IR-SE50 never does.
    Raises WeightsError, which begins with `what`, if the file is missing, of another kind, or does
    not load strictly.
    """
    file = located(path)
    if not file.is_file():
        raise WeightsError(f"{what}: no file {path!r}")
    if file.suffix == ".onnx":
        with explained(path, what):
            model: Any = get_model(str(file), providers=_providers(device))
        if model is None or model.taskname != "recognition":
            raise WeightsError(f"{what}={path!r} is not a recogniser in ArcFace's form")
        return _encoder_of(model, unit=unit)
    if file.suffix != ".pth":
        raise WeightsError(f"{what}={path!r} is neither a .pth (IR-SE50) nor an .onnx")
    if not unit:
        raise WeightsError(f"{what}={path!r} gives embeddings of unit norm alone: name an .onnx")
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


def aligned(
    image: np.ndarray, keypoints: np.ndarray, side: int = 112
) -> UInt8[np.ndarray, "{side} {side} 3"]:
    """insightface's five-point alignment of an image to `side` x `side`, a multiple of 112 or 128."""
    return norm_crop(image, keypoints, side)


def _encoder_of(model: Any, *, unit: bool = True) -> EncodeMany:
    """insightface's ArcFaceONNX on many crops; one by one where the file has a batch of one."""
    one_by_one = model.input_shape[0] == 1

    def encode(crops: Sequence[np.ndarray]) -> np.ndarray:
        batches = [[crop] for crop in crops] if one_by_one else [list(crops)]
        found = np.concatenate([model.get_feat(batch) for batch in batches])
        return np.stack([vector / np.linalg.norm(vector) if unit else vector for vector in found])

    return encode


def _providers(device: str) -> list[str]:
    return (["CUDAExecutionProvider"] if device.startswith("cuda") else []) + [
        "CPUExecutionProvider"
    ]
