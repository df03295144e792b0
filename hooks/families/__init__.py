"""Families of denoisers: one value a family, which holds everything that hooks must know of it."""

from torch import nn

from stepscope.hooks.errors import UnsupportedPipelineError
from stepscope.hooks.families.chroma import CHROMA
from stepscope.hooks.families.family import Branches, Family, Pass, Tokens
from stepscope.hooks.families.flux import FLUX, FLUX_CONTROLNET
from stepscope.hooks.families.flux2 import FLUX2
from stepscope.hooks.families.qwen import QWEN_IMAGE
from stepscope.hooks.families.sd3 import SD3
from stepscope.hooks.families.unet import UNET, UNET_CONTROLNET, UNET_CONTROLNET_UNION
from stepscope.hooks.families.z_image import Z_IMAGE
from stepscope.hooks.sites import Block

__all__ = [
    "FAMILIES",
    "PIPELINES",
    "Branches",
    "Family",
    "Pass",
    "Tokens",
    "blocks_of",
    "family_of",
    "register",
    "register_pipeline",
]

FAMILIES: list[Family] = [
    FLUX,
    FLUX_CONTROLNET,
    UNET,
    UNET_CONTROLNET,
    UNET_CONTROLNET_UNION,
    SD3,
    CHROMA,
    QWEN_IMAGE,
    FLUX2,
    Z_IMAGE,
]
"""Families of denoisers, and of the networks of adapters; the first whose class fits is taken."""


def register(family: Family) -> None:
    """Add your own family of models; it takes precedence over the built-in ones."""
    FAMILIES.insert(0, family)


PIPELINES: dict[type, Branches] = {}
"""Pipelines with a denoising loop of their own, added by `register_pipeline`."""


def register_pipeline(kind: type, branches: Branches) -> None:
    """Say which branch each pass of a pipeline's own denoising loop is; see `Branches`.

    Most pipelines use `hooks.families.flux.in_turn` or `hooks.families.unet.guided`.
    """
    PIPELINES[kind] = branches


def family_of(model: nn.Module) -> Family:
    """The family of a denoiser or an adapter's network.

    Raises UnsupportedPipelineError for a class that is in no family.
    """
    for family in FAMILIES:
        if isinstance(model, family.model):
            return family
    known = ", ".join(family.model.__name__ for family in FAMILIES if family.pipelines)
    raise UnsupportedPipelineError(
        f"the blocks of its {type(model).__name__} are not known; known: {known}"
    )


def blocks_of(model: nn.Module) -> list[Block]:
    """The transformer blocks of a denoiser or a ControlNet, in order of execution.

    Raises UnsupportedPipelineError for a class that is in no family.
    """
    return family_of(model).blocks(model)
