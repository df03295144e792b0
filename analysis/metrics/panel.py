"""The panel of face recognisers that judge a run, each with its detector, and their reference faces."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from stepscope.analysis.metrics.metric import digests
from stepscope.hooks.errors import StepscopeError
from stepscope.probes.places import located
from stepscope.probes.recognisers import EncodeMany, load_encoder_of_many, load_judge
from stepscope.probes.weights import WeightsError, pack_folder

RECOGNISER_FILES = (".pth", ".onnx")
SMALLEST, LARGEST = 128, 640
"""Detection sizes of insightface's own choice, between which ours is pinned."""
DEFAULT = "buffalo_l"
"""The pack that judges a run which names none: insightface's own default."""


@dataclass(frozen=True)
class Recogniser:
    """One recogniser: its name, a pack or a file, the pack that finds faces for it.

    conditioning: it is the run's conditioning encoder, by the hash of its file, so that its
    similarity is circular.
    """

    name: str
    source: str
    detector: str
    conditioning: bool
    files: Mapping[str, str]

    @property
    def is_pack(self) -> bool:
        return Path(self.source).suffix not in RECOGNISER_FILES


def panel(
    about: Mapping[str, Any], given: Sequence[str] | None, root: str
) -> tuple[Recogniser, ...]:
    """The recognisers of a run with these attributes.

    given: insightface packs, by name under `root` or by folder, and recogniser files (IR-SE50's
    `.pth`, an ArcFace-form `.onnx`); None is the pack that found the run's faces and, flagged, the
    encoder that conditioned it; of an adapter that reads no face, the pack whose folder its settings name,
    else `DEFAULT`. Raises StepscopeError where no pack is given that finds faces, WeightsError if one is
    missing.
    """
    adapter = about.get("configuration", {}).get("adapter")
    if given is None:
        own = adapter if adapter is not None and reads_faces(adapter, root) else None
        given = [own["detector"], own["encoder"]] if own else [pack_of(adapter) or DEFAULT]
    packs = [one for one in given if Path(one).suffix not in RECOGNISER_FILES]
    detector = packs[0] if packs else (adapter or {}).get("detector")
    if detector is None:
        raise StepscopeError(
            f"recognisers={list(given)} has no insightface pack to find faces with"
        )
    names = [Path(one).stem if one not in packs else Path(one).name for one in given]
    if len(set(names)) != len(names):
        raise StepscopeError(f"recognisers={list(given)} names one twice")
    encoders = {v for k, v in about.get("weights", {}).items() if k.startswith("encoder/")}
    found = []
    for name, source in zip(names, given, strict=True):
        files = digests(place(source, root))
        circular = bool(encoders & set(files.values()))
        found.append(
            Recogniser(name, source, source if source in packs else detector, circular, files)
        )
    return tuple(found)


def pack_of(adapter: Mapping[str, Any] | None) -> str | None:
    """The folder of the pack that an adapter's settings name; None for the name of one."""
    named = str((adapter or {}).get("detector") or "")
    return named if "/" in named else None


def reads_faces(adapter: Mapping[str, Any], root: str) -> bool:
    """Whether an adapter's settings name a detector and a recogniser: an image encoder is none."""
    named = str(adapter.get("encoder") or "")
    if not named or not adapter.get("detector"):
        return False
    a_pack = "/" not in named or pack_folder(named, root) is not None
    return Path(named).suffix in RECOGNISER_FILES or a_pack


def place(source: str, root: str) -> Path:
    """Path of a recogniser: its file, or its pack's folder. Raises WeightsError."""
    return existing(source) if Path(source).suffix in RECOGNISER_FILES else pack(source, root)


def pack(name: str, root: str) -> Path:
    """Folder of a pack. Raises WeightsError."""
    found = pack_folder(name, root)
    if found is not None:
        return found
    raise WeightsError(
        f"recognisers: no insightface pack {name!r} (looked in {root}/models): "
        f"`insightface-cli model.download {name}` gets insightface's own (non-commercial research), or "
        "name a folder with .onnx files, recognisers=[PACK]; for pocket images "
        "recognisers=[pocket/models/insightface/models/pocket]"
    )


def existing(path: str) -> Path:
    """A recogniser's file. Raises WeightsError."""
    file = located(path)
    if not file.is_file():
        raise WeightsError(f"recognisers: no file {path!r}")
    return file


def pinned(given: int | None, image: Sequence[int]) -> int:
    """The detection size: the given one, or the image's longer side in whole 32, from 128 to 640."""
    if given is not None:
        return given
    return int(np.clip(32 * np.ceil(max(image) / 32), SMALLEST, LARGEST))


@cache
def load_pack(folder: str, root: str, device: str, size: int) -> tuple[Any, EncodeMany]:
    """A pack's detector, pinned to `size`, and its recogniser."""
    return load_judge(folder, root, device, size)


@cache
def load_file(path: str, device: str) -> EncodeMany:
    """A recogniser's file."""
    return load_encoder_of_many(path, device, "recognisers")


def encoder(one: Recogniser, root: str, device: str, size: int) -> EncodeMany:
    """A recogniser, loaded once."""
    if one.is_pack:
        return load_pack(str(pack(one.source, root)), root, device, size)[1]
    return load_file(str(existing(one.source)), device)


def detector(one: Recogniser, root: str, device: str, size: int) -> Any:
    """What finds faces for a recogniser, loaded once."""
    return load_pack(str(pack(one.detector, root)), root, device, size)[0]


def references(one: Recogniser, encode: EncodeMany, samples: xr.Dataset) -> np.ndarray:
    """Unit-norm embeddings (sample, 512) of each sample's reference face, NaN where there is none.

    The conditioning encoder's is what the adapter was given; another's is of the recorded crop,
    which a face that was given as an embedding does not have.
    """
    if one.conditioning:
        return samples["face_embedding"].values.astype(np.float32)
    crops = samples["face_crop"].values
    found = np.full((len(crops), 512), np.nan, np.float32)
    seen: dict[bytes, np.ndarray] = {}
    for i, crop in enumerate(crops):
        key = crop.tobytes()
        if crop.any():
            if key not in seen:
                seen[key] = encode([np.ascontiguousarray(crop[:, :, ::-1])])[0]
            found[i] = seen[key]
    return found
