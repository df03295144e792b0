"""What a ControlNet hands to a denoiser, one use at a time: the sites `<block>.adapter`."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

Kwargs = Mapping[str, Any]
"""The named arguments of a denoiser's pass."""


@runtime_checkable
class Edges(Protocol):
    """The places at which a network adds to a denoiser.

    names: `<block>.adapter` of each, in order of use. uses: of a pass's arguments, name -> what is added
        there, already scaled; nothing where the pass is given nothing. handed: the arguments that add the
        same where `changed` has no other. tokens: a use as (row, token, channel), and `given` back.
    """

    names: tuple[str, ...]

    def uses(self, kwargs: Kwargs) -> dict[str, torch.Tensor]: ...

    def handed(self, kwargs: Kwargs, changed: Mapping[str, torch.Tensor]) -> dict[str, Any]: ...

    def tokens(self, use: torch.Tensor) -> torch.Tensor: ...

    def given(self, tokens: torch.Tensor, use: torch.Tensor) -> torch.Tensor: ...


class FluxEdges:
    """Residuals that a FLUX ControlNet adds to the image tokens after each block.

    Blocks share them: double block i gets r[i // ceil(doubles / len(r))], or r[i % len(r)] if the
    ControlNet repeats; single block i gets s[i // ceil(singles / len(s))] (FluxTransformer2DModel.forward).
    One for each block is the same arithmetic.
    """

    def __init__(self, denoiser: nn.Module, network: nn.Module) -> None:
        self._counts = {
            "double": _length(denoiser.transformer_blocks),
            "single": _length(denoiser.single_transformer_blocks),
        }
        self._argument = {
            "double": "controlnet_block_samples",
            "single": "controlnet_single_block_samples",
        }
        adds = {
            "double": _length(getattr(network, "controlnet_blocks", ())),
            "single": _length(getattr(network, "controlnet_single_blocks", ())),
        }
        self.names = tuple(
            f"{kind}.{i:02d}.adapter"
            for kind, count in self._counts.items()
            for i in range(count if adds[kind] else 0)
        )

    def uses(self, kwargs: Kwargs) -> dict[str, torch.Tensor]:
        found = {}
        for kind, count in self._counts.items():
            given: Sequence[torch.Tensor] = kwargs.get(self._argument[kind]) or ()
            every = math.ceil(count / len(given)) if given else 1
            repeat = kind == "double" and bool(kwargs.get("controlnet_blocks_repeat"))
            for i in range(count if given else 0):
                use = given[i % len(given) if repeat else i // every]
                found[f"{kind}.{i:02d}.adapter"] = use
        return found

    def handed(self, kwargs: Kwargs, changed: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        uses = self.uses(kwargs) | dict(changed)
        given = dict(kwargs)
        for kind, argument in self._argument.items():
            if kwargs.get(argument):
                given[argument] = [use for name, use in uses.items() if name.startswith(kind)]
        return given

    def tokens(self, use: torch.Tensor) -> torch.Tensor:
        return use

    def given(self, tokens: torch.Tensor, use: torch.Tensor) -> torch.Tensor:
        return tokens


class UnetEdges:
    """Residuals that a ControlNet adds to a U-Net's skip connections, and to its middle block's output.

    `skip.00.adapter` is the first that the downward half made, which the upward half reads last
    (UNet2DConditionModel.forward); each is read once. Their tokens are pixels of the level, row by row.
    """

    _SKIPS, _MIDDLE = "down_block_additional_residuals", "mid_block_additional_residual"

    def __init__(self, denoiser: nn.Module, network: nn.Module) -> None:
        skips = range(_length(network.controlnet_down_blocks))
        self.names = (*(f"skip.{i:02d}.adapter" for i in skips), "mid.adapter")

    def uses(self, kwargs: Kwargs) -> dict[str, torch.Tensor]:
        skips, middle = kwargs.get(self._SKIPS), kwargs.get(self._MIDDLE)
        if skips is None or middle is None:
            return {}
        found = {f"skip.{i:02d}.adapter": use for i, use in enumerate(skips)}
        return found | {"mid.adapter": middle}

    def handed(self, kwargs: Kwargs, changed: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        *skips, middle = (self.uses(kwargs) | dict(changed)).values()
        return dict(kwargs) | {self._SKIPS: tuple(skips), self._MIDDLE: middle}

    def tokens(self, use: torch.Tensor) -> torch.Tensor:
        return use.permute(0, 2, 3, 1).flatten(1, 2)

    def given(self, tokens: torch.Tensor, use: torch.Tensor) -> torch.Tensor:
        unfolded = tokens.unflatten(1, use.shape[2:]).permute(0, 3, 1, 2)
        return torch.empty_like(use).copy_(unfolded)


def _length(modules: Any) -> int:
    return len(modules)
