"""InfuseNet (InfiniteYou): a ControlNet whose text is a face.

Follows the published pipeline (github.com/bytedance/InfiniteYou, pipelines/pipeline_infu_flux.py):
identity tokens with all-zero ids stand in place of the text, the guidance embedding is its own, and
with true CFG the negative pass gets no residuals.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from diffusers import FluxControlNetModel
from diffusers.models.embeddings import IPAdapterPlusImageProjection
from jaxtyping import Float
from torch import Tensor, nn

from stepscope.hooks import families
from stepscope.hooks.clock import Listener, denoiser_of, listening
from stepscope.hooks.compiled import before
from stepscope.hooks.errors import StepscopeError
from stepscope.hooks.families.flux import FLUX_CONTROLNET
from stepscope.probes.weights import WeightsError, check_complete, explained, folder

PROJECTION = "image_proj_model.bin"
"""The projection's file beside `InfuseNetModel/`."""


class InfuseNet(FluxControlNetModel):
    """FluxControlNetModel that reads identity tokens, and is not run where it cannot matter.

    A subclass only because FluxControlNetPipeline asks for the class. Set `identity` (batch, token,
    channel) before a call; `guidance` is its own guidance embedding.
    """

    identity: Tensor | None = None
    guidance: float = 1.0

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, hidden_states: Tensor, *, conditioning_scale: float = 1.0, **kwargs: Any
    ) -> Any:
        """Residuals for the transformer's blocks; (None, None) at scale 0, where they would be zero."""
        if conditioning_scale == 0:
            return None, None
        if self.identity is None:
            raise StepscopeError("InfuseNet has no face: set `identity` before the call")
        tokens = self.identity.to(hidden_states)
        kwargs |= {
            "encoder_hidden_states": tokens,
            "txt_ids": kwargs["img_ids"].new_zeros(tokens.shape[1], 3),
            "guidance": hidden_states.new_full((len(hidden_states),), self.guidance),
        }
        return super().forward(hidden_states, conditioning_scale=conditioning_scale, **kwargs)


INFUSENET = replace(
    FLUX_CONTROLNET, name="InfuseNet", model=InfuseNet, context="identity", text_encoder=None
)
families.register(INFUSENET)


@runtime_checkable
class Published(Protocol):
    """Where InfuseNet lies, and what its files do not say; see `InfuseNetSettings`."""

    @property
    def path(self) -> str: ...
    @property
    def variant(self) -> str: ...
    @property
    def heads(self) -> int: ...
    @property
    def guidance(self) -> float: ...


def load_infusenet(adapter: Published, dtype: torch.dtype) -> tuple[InfuseNet, nn.Module]:
    """InfuseNet and its projection from the published layout.

    Raises WeightsError if `InfuseNetModel/` or `image_proj_model.bin` is missing or damaged.
    """
    path = adapter_folder(adapter.path, adapter.variant)
    with explained(adapter.path, "adapter"):
        network = InfuseNet.from_pretrained(path / "InfuseNetModel", dtype=dtype)
        check_complete(network)
        projection = load_projection(path / PROJECTION, adapter.heads).to(dtype)
    network.guidance = adapter.guidance
    return network, projection


def adapter_folder(
    path: str, variant: str, *, download: bool = True, settings_only: bool = False
) -> Path:
    """The folder that holds `InfuseNetModel/`: `path` itself, or its `infu_flux_v1.0/<variant>`.

    settings_only: of a hub repository, without weights. Raises WeightsError.
    """
    files = ("InfuseNetModel/*.json",) if settings_only else ("InfuseNetModel/*", PROJECTION)
    published = f"infu_flux_v1.0/{variant}/"
    wanted = [under + file for under in ("", published) for file in files]
    root = folder(path, "adapter", wanted, download=download)
    for candidate in (root, root / published):
        if (candidate / "InfuseNetModel").is_dir():
            return candidate
    raise WeightsError(f"adapter {path!r} has no InfuseNetModel/ (nor {published})")


def load_projection(path: Path, heads: int) -> nn.Module:
    """The perceiver resampler (batch, 1, 512) -> (batch, token, channel) from the published file.

    diffusers' IPAdapterPlusImageProjection is the same network under other key names; its sizes
    follow from the tensors' shapes, but the number of heads does not.
    """
    if not path.is_file():
        raise WeightsError(f"adapter has no {path.name} in {path.parent}")
    published = torch.load(path, map_location="cpu", weights_only=True)["image_proj"]
    width = published["proj_in.weight"].shape[0]
    if width % heads:
        raise WeightsError(f"{path}: width {width} does not divide into adapter.heads={heads}")
    projection = IPAdapterPlusImageProjection(
        embed_dims=published["proj_in.weight"].shape[1],
        output_dims=published["proj_out.weight"].shape[0],
        hidden_dims=width,
        depth=1 + max(int(k.split(".")[1]) for k in published if k.startswith("layers.")),
        dim_head=published["layers.0.0.to_q.weight"].shape[0] // heads,
        heads=heads,
        num_queries=published["latents"].shape[1],
        ffn_ratio=published["layers.0.1.1.weight"].shape[0] / width,
    )
    projection.load_state_dict(dict(_renamed(published)))
    return projection.eval().requires_grad_(False)


# Published name within a layer -> name in diffusers.
_LAYER = {
    "0.norm1": "ln0",
    "0.norm2": "ln1",
    "0.to_q": "attn.to_q",
    "0.to_out": "attn.to_out.0",
    "1.0": "ff.0",
    "1.1": "ff.1.net.0.proj",
    "1.3": "ff.1.net.2",
}


def _renamed(published: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for name, value in published.items():
        layer = re.fullmatch(r"layers\.(\d+)\.(.+)\.(weight|bias)", name)
        if layer is None:
            yield name, value
            continue
        index, part, kind = layer.groups()
        if part == "0.to_kv":
            key, to_value = value.chunk(2)
            yield f"layers.{index}.attn.to_k.{kind}", key
            yield f"layers.{index}.attn.to_v.{kind}", to_value
        else:
            yield f"layers.{index}.{_LAYER[part]}.{kind}", value


@torch.no_grad()
def identity_tokens(
    projection: nn.Module, embeddings: Float[Tensor, "sample 512"]
) -> Float[Tensor, "sample token channel"]:
    """The tokens that InfuseNet reads, from unit-norm face embeddings."""
    like = next(projection.parameters())
    return projection(embeddings[:, None].to(like))


@contextmanager
def positive_only(pipe: Any) -> Iterator[None]:
    """Withhold the residuals from the negative pass of true CFG, as InfiniteYou does.

    diffusers' FluxControlNetPipeline hands them to both passes. The clock says which pass it is.
    """
    with listening(pipe, Listener()) as clock:

        def withhold(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
            if clock.nth == 1:
                kwargs["controlnet_block_samples"] = None
                kwargs["controlnet_single_block_samples"] = None
            return args, kwargs

        # After the clock's own hook, before any that records.
        handle = before(denoiser_of(pipe), withhold, with_kwargs=True, outside=True)
        try:
            yield
        finally:
            handle.remove()
