"""Stable Diffusion 1.5 and XL: U-Nets with transformer blocks at several resolutions, and ControlNets."""

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from diffusers import ControlNetModel, ControlNetUnionModel, UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from torch import nn

from stepscope.hooks.errors import UnsupportedPipelineError
from stepscope.hooks.families.arguments import argument
from stepscope.hooks.families.edges import UnetEdges
from stepscope.hooks.families.family import Branches, Family, Pass, Tokens
from stepscope.hooks.families.unet_wiring import UnetWiring
from stepscope.hooks.sites import Block, Site


def _tensor(output: Any, image_tokens: int) -> tuple[torch.Tensor, ...]:
    return (output,)


def text_and_image_prompt(
    module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """A cross-attention's output as what it has of the text and, with an IP-Adapter, of the image prompt.

    The processor adds scale x attention(query, image) before the output projection, so the output
    is linear in the scale: at scale 0 the same module gives the text's part, and the rest is the
    image prompt's (Ye et al. 2023, eq. 5). That runs the module a second time, unless every scale is 0.
    """
    processor: Any = getattr(module, "processor", None)
    if not hasattr(processor, "to_k_ip"):
        return (output,)
    scale = processor.scale
    if not any(any(one) if isinstance(one, list) else one for one in scale):
        return output, torch.zeros_like(output)
    processor.scale = [0.0] * len(scale)
    try:
        text = module.forward(*args, **kwargs)
    finally:
        processor.scale = scale
    return text, output - text


def _sites(module: Any) -> tuple[Site, ...]:
    if module.only_cross_attention:
        raise UnsupportedPipelineError(
            "both attentions of its U-Net's blocks read the text (only_cross_attention), and one stream "
            "cannot hold two"
        )
    sites = [Site("attention", ("image",), module.attn1, _tensor)]
    if module.attn2 is not None:
        streams = ("text", "image_prompt")
        sites.append(Site("attention", streams, module.attn2, _tensor, text_and_image_prompt))
    return (*sites, Site("residual", ("image",), module, _tensor))


def _blocks(model: nn.Module) -> list[Block]:
    found: dict[str, list[tuple[str, nn.Module]]] = {"down": [], "mid": [], "up": []}
    for path, module in model.named_modules():
        if isinstance(module, BasicTransformerBlock):
            kind = path.split("_block")[0]
            if kind not in found:
                continue  # a ControlNetUnion's own attention over its control images
            where = ".".join(f"{int(n):02d}" for n in re.findall(r"\d+", path))
            found[kind].append((f"{kind}.{where}", module))
    return [
        Block(name, kind, index, module, _sites(module))
        for kind, named in found.items()  # order of execution; named_modules has the middle block last
        for index, (name, module) in enumerate(named)
    ]


def _tokens(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tokens:
    sample: torch.Tensor = argument(args, kwargs, 0, "sample")
    grid = sample.shape[2], sample.shape[3]
    return Tokens(math.prod(grid), 0, grid, 0)


def _unpacked(latents: torch.Tensor, tokens: Tokens) -> torch.Tensor:
    return latents


# The order of a batch's parts is that in which each pipeline's __call__ concatenates and chunks them.


def guided(seen: Pass) -> tuple[str, ...] | None:
    """Classifier-free guidance in one batch, the negative prompt first."""
    known = {1: ("positive",), 2: ("negative", "positive")}
    return known.get(seen.parts) if seen.nth == 0 else None


def perturbed(seen: Pass) -> tuple[str, ...] | None:
    """Perturbed-attention guidance (Ahn et al. 2024): the perturbed copy of the prompt's part is last.

    See PAGMixin._prepare_perturbed_attention_guidance.
    """
    if not seen.pipe.do_perturbed_attention_guidance:
        return guided(seen)
    both = ("positive", "perturbed")
    names = ("negative", *both) if seen.pipe.do_classifier_free_guidance else both
    return names if seen.nth == 0 and seen.parts == len(names) else None


def degraded(seen: Pass) -> tuple[str, ...] | None:
    """Self-attention guidance (Hong et al. 2023): a second pass, on latents blurred where attention is.

    It reads the negative prompt under classifier-free guidance and the prompt without it.
    """
    if seen.nth == 1:
        return ("perturbed",) if seen.parts == 1 else None
    return guided(seen)


def of_text_and_image(seen: Pass) -> tuple[str, ...] | None:
    """InstructPix2Pix (Brooks et al. 2023, eq. 3): text and image, the image alone, neither."""
    known = {1: ("positive",), 3: ("positive", "image_only", "negative")}
    return known.get(seen.parts) if seen.nth == 0 else None


_GUIDED = (
    "StableDiffusionPipeline",
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionInpaintPipeline",
    "StableDiffusionDepth2ImgPipeline",
    "StableDiffusionUpscalePipeline",
    "StableDiffusionLatentUpscalePipeline",
    "StableDiffusionXLPipeline",
    "StableDiffusionXLImg2ImgPipeline",
    "StableDiffusionXLInpaintPipeline",
    "StableDiffusionControlNetPipeline",
    "StableDiffusionControlNetImg2ImgPipeline",
    "StableDiffusionControlNetInpaintPipeline",
    "StableDiffusionXLControlNetPipeline",
    "StableDiffusionXLControlNetImg2ImgPipeline",
    "StableDiffusionXLControlNetInpaintPipeline",
    "StableDiffusionXLControlNetUnionPipeline",
    "StableDiffusionXLControlNetUnionImg2ImgPipeline",
    "StableDiffusionXLControlNetUnionInpaintPipeline",
    "StableDiffusionAdapterPipeline",
    "StableDiffusionXLAdapterPipeline",
    "LatentConsistencyModelPipeline",
    "LatentConsistencyModelImg2ImgPipeline",
    "KolorsPipeline",
    "KolorsImg2ImgPipeline",
    "AltDiffusionPipeline",
    "AltDiffusionImg2ImgPipeline",
    "StableUnCLIPPipeline",
    "StableUnCLIPImg2ImgPipeline",
    "StableDiffusionGLIGENPipeline",
    "StableDiffusionModelEditingPipeline",
    "StableDiffusionInpaintPipelineLegacy",
)
_PERTURBED = (
    "StableDiffusionPAGPipeline",
    "StableDiffusionPAGImg2ImgPipeline",
    "StableDiffusionPAGInpaintPipeline",
    "StableDiffusionControlNetPAGPipeline",
    "StableDiffusionControlNetPAGInpaintPipeline",
    "StableDiffusionXLPAGPipeline",
    "StableDiffusionXLPAGImg2ImgPipeline",
    "StableDiffusionXLPAGInpaintPipeline",
    "StableDiffusionXLControlNetPAGPipeline",
    "StableDiffusionXLControlNetPAGImg2ImgPipeline",
    "KolorsPAGPipeline",
)
_PIX2PIX = ("StableDiffusionInstructPix2PixPipeline", "StableDiffusionXLInstructPix2PixPipeline")
_PASSES: dict[str, Branches] = {
    **dict.fromkeys(_GUIDED, guided),
    **dict.fromkeys(_PERTURBED, perturbed),
    **dict.fromkeys(_PIX2PIX, of_text_and_image),
    "StableDiffusionSAGPipeline": degraded,
}
_VIEWS = "it denoises overlapping views of one image in several passes a step"
_IMAGE_AS_TEXT = "an image stands in the place of the text that its cross-attention reads"
_GRADIENTS = "it runs the U-Net further times a step to change the latents by their gradient"
_TWO = "it denoises a source and a target, whose passes are not those of one prompt"
_REFUSED = {
    "StableDiffusionPanoramaPipeline": _VIEWS,
    "StableDiffusionImageVariationPipeline": _IMAGE_AS_TEXT,
    "PaintByExamplePipeline": _IMAGE_AS_TEXT,
    "StableDiffusionAttendAndExcitePipeline": _GRADIENTS,
    "StableDiffusionPix2PixZeroPipeline": _GRADIENTS,
    "CycleDiffusionPipeline": _TWO,
    "LEditsPPPipelineStableDiffusion": _TWO,
    "LEditsPPPipelineStableDiffusionXL": _TWO,
    "StableDiffusionDiffEditPipeline": "its generate_mask and invert run the U-Net outside of a call",
    "StableDiffusionPipelineSafe": "it guides away from a third, safety prompt",
    "SemanticStableDiffusionPipeline": "it guides by further, semantic prompts",
    "StableDiffusionParadigmsPipeline": "it denoises several steps in one batch",
    "StableDiffusionLDM3DPipeline": "it returns an image and a depth map",
}

UNET = Family(
    "U-Net",
    UNet2DConditionModel,
    _blocks,
    _tokens,
    _unpacked,
    pipelines=_PASSES,
    refused=_REFUSED,
    edges=UnetEdges,
    wiring=UnetWiring,
)
UNET_CONTROLNET = Family("ControlNet", ControlNetModel, _blocks, _tokens, _unpacked)
UNET_CONTROLNET_UNION = Family(
    "ControlNet Union", ControlNetUnionModel, _blocks, _tokens, _unpacked
)
