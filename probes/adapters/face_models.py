"""The recogniser and the detector of adapters that read faces, as models of a study."""

from pathlib import Path

from stepscope.probes.adapters.adapter import ModelPlace
from stepscope.probes.places import located
from stepscope.probes.weights import WeightsError, pack_folder, subfolder


def encoder_place(encoder: str) -> ModelPlace:
    """The conditioning recogniser: a `.pth` or an `.onnx` file."""

    def find() -> Path:
        if not located(encoder).is_file():
            raise WeightsError(f"no file {encoder!r}")
        return located(encoder)

    return ModelPlace("encoder", "encoder", encoder, find, cast=False, faces=True)


def clip_place(key: str, place: str) -> ModelPlace:
    """CLIP's image encoder."""
    return ModelPlace(
        key,
        key,
        place,
        lambda: subfolder(place, f"adapter.{key}", download=False),
        cast=False,
        held=False,
        faces=True,
    )


def pack_place(detector: str, root: str) -> ModelPlace:
    """The detector: an insightface pack, by name under `root` or by folder."""

    def find() -> Path:
        pack = pack_folder(detector, root)
        if pack is None:
            raise WeightsError(f"no pack {detector!r}")
        return pack

    words = {"root": root}
    return ModelPlace(
        "detector", "detector", detector, find, cast=False, held=False, words=words, faces=True
    )
