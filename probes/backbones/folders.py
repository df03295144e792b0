"""The folder that a backbone is read from: local, of the hub, or that of a single file's base."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from diffusers import AutoencoderKL, DiffusionPipeline

from stepscope.probes.backbones.family import Backbone
from stepscope.probes.weights import (
    WeightsError,
    check_same_layout,
    explained,
    folder,
    is_file,
    local_folder,
)


def rest_of(backbone: Backbone) -> str:
    """The folder or hub id of a backbone; of a single file, that of its base.

    Raises WeightsError for a single file without a base.
    """
    if not is_file(backbone.path):
        return backbone.path
    if backbone.base is None:
        raise WeightsError(
            f"backbone {backbone.name}: {backbone.path!r} is a single file: name the folder or hub id that "
            "has the rest, backbone.base=black-forest-labs/FLUX.1-dev"
        )
    return backbone.base


def laid_out(
    backbone: Backbone, parts: Sequence[str], title: str, *, settings: bool
) -> Path | None:
    """A local folder that has these parts; of a hub repository, its configurations if settings, else None.

    Raises WeightsError for a folder that lacks a part.
    """
    what, path = f"backbone {backbone.name}", rest_of(backbone)
    found = local_folder(path, what)
    if found is None and settings:
        found = folder(path, what, ["*.json", "**/*.json"])
    if found is not None:
        check_same_layout(found, what, parts, title)
    return found


def downloaded(backbone: Backbone, *, download: bool) -> Path:
    """The snapshot of a hub repository with what its `model_index.json` names. Raises WeightsError."""
    path = rest_of(backbone)
    with explained(path, f"backbone {backbone.name}"):
        return Path(DiffusionPipeline.download(path, local_files_only=not download))


class LatentSizes(NamedTuple):
    """Of a VAE: channels of its latents, and pixels to a side of one of them."""

    channels: int
    factor: int


def latent_sizes(folder: Path) -> LatentSizes:
    """Those of the VAE in a backbone's folder, from its configuration alone."""
    vae: Any = AutoencoderKL.load_config(folder / "vae")
    return LatentSizes(vae.get("latent_channels", 4), 2 ** (len(vae["block_out_channels"]) - 1))
