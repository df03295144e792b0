"""Chroma: FLUX's blocks without its guidance, under a mask of the text's padding.

Read from models/transformers/transformer_chroma.py (0.42): single blocks return the one sequence
[text; image] that they read. One padding token after the text is attended to, the others are masked
(ChromaPipeline._get_t5_prompt_embeds).
"""

from diffusers import ChromaTransformer2DModel
from torch import nn

from stepscope.hooks.families.family import Family, Pass, two_passes
from stepscope.hooks.families.flux import tokens_by_ids, unpacked
from stepscope.hooks.families.joint import (
    BOTH,
    blocks_of,
    in_order,
    one_sequence,
    text_first,
)
from stepscope.hooks.families.joint_wiring import JointWiring
from stepscope.hooks.sites import Block


def _blocks(model: nn.Module) -> list[Block]:
    streams = (*BOTH, "image_prompt")
    return [
        *blocks_of("double", model.transformer_blocks, in_order, text_first, streams),
        *blocks_of("single", model.single_transformer_blocks, one_sequence, one_sequence),
    ]


def _guided(seen: Pass) -> bool:
    return seen.pipe.do_classifier_free_guidance


in_turn = two_passes(_guided)


CHROMA = Family(
    "Chroma",
    ChromaTransformer2DModel,
    _blocks,
    tokens_by_ids,
    unpacked,
    pipelines=dict.fromkeys(("ChromaPipeline", "ChromaImg2ImgPipeline"), in_turn),
    refused={
        "ChromaInpaintPipeline": "its call fails in diffusers 0.42, for it asks its transformer's settings "
        "for guidance_embeds, which a ChromaTransformer2DModel does not have",
    },
    text_encoder="text_encoder",
    thousandths=True,
    wiring=JointWiring,
)
