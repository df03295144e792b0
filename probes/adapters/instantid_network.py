"""InstantID's two networks: IdentityNet, a ControlNet that reads a face as text, and the image branch.

Follows the published pipeline (github.com/instantX-research/InstantID at 2145b67,
pipeline_stable_diffusion_xl_instantid.py): the face's tokens stand in place of the text, in both halves of
classifier-free guidance, beside the text's pooled embedding and the picture's size.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import ControlNetModel
from torch import Tensor, nn

from stepscope.hooks import families
from stepscope.hooks.errors import StepscopeError
from stepscope.hooks.families.unet import UNET_CONTROLNET
from stepscope.probes.adapters.ip_adapter_file import Kind, check_backbone, read_kind
from stepscope.probes.weights import (
    WeightsError,
    check_complete,
    explained,
    folder,
    meta,
    weight_files,
)

NETWORK, BRANCH = "ControlNetModel", "ip-adapter.bin"
"""What lies in the published folder."""
FACE = 512  # numbers of a face's embedding
_SAME = ("in_channels", "block_out_channels", "layers_per_block", "cross_attention_dim")


class IdentityNet(ControlNetModel):
    """A ControlNet that reads identity tokens in place of the text, and is not run at scale 0.

    A subclass only because diffusers' pipeline asks for the class. Set `identity` (row of the pass, token,
    channel) before a call.
    """

    identity: Tensor | None = None

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, sample: Tensor, timestep: Any, *, conditioning_scale: float = 1.0, **kwargs: Any
    ) -> Any:
        """Residuals for the U-Net; (None, None) at scale 0, where they would be zero."""
        if conditioning_scale == 0:
            return None, None
        if self.identity is None:
            raise StepscopeError("IdentityNet has no face: set `identity` before the call")
        kwargs["encoder_hidden_states"] = self.identity.to(sample)
        return super().forward(sample, timestep, conditioning_scale=conditioning_scale, **kwargs)


families.register(
    replace(
        UNET_CONTROLNET,
        name="IdentityNet",
        model=IdentityNet,
        context="identity",
        text_encoder=None,
    )
)


def published(place: str, *, download: bool = True, settings: bool = False) -> Path:
    """The published folder. settings: of a hub repository, without weights. Raises WeightsError."""
    wanted = [f"{NETWORK}/*.json"] if settings else [f"{NETWORK}/*", BRANCH]
    found = folder(place, "adapter", wanted, download=download)
    if not (found / NETWORK).is_dir():
        raise WeightsError(f"adapter {place!r} has no {NETWORK}")
    if not settings and not (found / BRANCH).is_file():
        raise WeightsError(f"adapter {place!r} has no {BRANCH}")
    return found


def weights(root: Path) -> Sequence[Path]:
    """Files of the weights in the published folder."""
    return [*weight_files(root / NETWORK).values(), root / BRANCH]


def bare_network(place: str) -> IdentityNet:
    """IdentityNet without weights, from its configuration. Raises WeightsError."""
    with explained(place, "adapter"):
        return meta(IdentityNet, published(place, settings=True) / NETWORK)


def load_network(root: Path, place: str, dtype: torch.dtype) -> IdentityNet:
    """IdentityNet on its weights. Raises WeightsError for what is damaged."""
    with explained(place, "adapter"):
        network = IdentityNet.from_pretrained(root / NETWORK, torch_dtype=dtype)
        check_complete(network)
    return network


def check_network(network: Any, denoiser: Any, place: str) -> None:
    """Raise WeightsError for a ControlNet that is not SDXL's, or of another size than the U-Net."""
    told = f"adapter {place!r}: its {NETWORK}"
    if network.config.addition_embed_type != "text_time":
        raise WeightsError(f"{told} is no ControlNet of SDXL: it reads no size of the picture")
    for name in _SAME:
        own, wanted = (_plain(one.config[name]) for one in (network, denoiser))
        if own != wanted:
            raise WeightsError(
                f"{told} is made for another backbone: its {name} is {own}, the backbone's {wanted}"
            )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value


def branch_kind(root: Path, place: str, denoiser: nn.Module | None = None) -> Kind:
    """What the file of the image branch holds; raises WeightsError where it is not InstantID's.

    denoiser: that its attentions are loaded into.
    """
    kind = read_kind(root / BRANCH, place)
    if not kind.hidden or kind.face_id or kind.embedding != FACE:
        raise WeightsError(
            f"adapter {place!r}: its {BRANCH} is an IP-Adapter of pictures; InstantID's reads a face's "
            f"embedding of {FACE} numbers by a resampler"
        )
    if denoiser is not None:
        check_backbone(kind, denoiser, place)
    return kind
