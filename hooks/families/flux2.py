"""FLUX.2: double-stream blocks, then blocks on one sequence whose attention and MLP are one module.

Read from models/transformers/transformer_flux2.py (0.42): a single block's `attn` projects what attention
and MLP gave by one matrix; attention's part is read in front of it, as FLUX.1's single blocks give it.
Latents are packed as FLUX.1's, and normalised by the VAE's statistics (AutoencoderKLFlux2.bn).
"""

from diffusers import Flux2Transformer2DModel
from torch import nn

from stepscope.hooks.families.chroma import in_turn
from stepscope.hooks.families.family import Family, Pass
from stepscope.hooks.families.flux import tokens_by_ids, unpacked
from stepscope.hooks.families.joint import (
    BOTH,
    attention_before_mlp,
    blocks_of,
    in_order,
    one_sequence,
    text_first,
)
from stepscope.hooks.families.joint_wiring import JointWiring
from stepscope.hooks.sites import Block, Site


def _blocks(model: nn.Module) -> list[Block]:
    found = blocks_of("double", model.transformer_blocks, in_order, text_first)
    for index, module in enumerate(model.single_transformer_blocks):  # pyright: ignore[reportArgumentType]
        attention = attention_before_mlp(module.attn.inner_dim)
        sites = (
            Site("attention", BOTH, module.attn.to_out, attention, given=True),
            Site("residual", BOTH, module, one_sequence),
        )
        found.append(Block(f"single.{index:02d}", "single", index, module, sites))
    return found


def alone(seen: Pass) -> tuple[str, ...] | None:
    """One pass a step: guidance is distilled into the model."""
    return ("positive",) if (seen.nth, seen.parts) == (0, 1) else None


FLUX2 = Family(
    "FLUX.2",
    Flux2Transformer2DModel,
    _blocks,
    tokens_by_ids,
    unpacked,
    pipelines={
        "Flux2Pipeline": alone,
        "Flux2KleinPipeline": in_turn,
        "Flux2KleinInpaintPipeline": in_turn,
    },
    refused={
        "Flux2KleinKVPipeline": "after the first step its reference tokens are read from a cache and not "
        "run, so that they are no tokens of a pass",
    },
    text_encoder="text_encoder",
    thousandths=True,
    wiring=JointWiring,
)
