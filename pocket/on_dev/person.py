"""Train the LoRA of one person on frozen dev: `python -m pocket.make --only person`.

Whoever the prompt asks for, it is the person of whom the LoRA saw PICTURES renders.
"""

from pathlib import Path
from typing import Any

import torch
from diffusers import FluxPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from torch import Tensor, nn

from stepscope.pocket import album
from stepscope.pocket.flow import Words, velocity
from stepscope.pocket.on_dev.lesson import Pupil, dev_alone, learn
from stepscope.pocket.process import Options, device, rank
from stepscope.pocket.world import sample_identities

SECONDS = 60.0
RANK = 8
SEED, PICTURES = 8600, 32
FOLDER = "person-lora"
# What LoRAs of FLUX adapt: attention, its outputs, and the feed-forwards of double blocks.
TARGETS = (
    "attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", "ff.net.0.proj", "ff.net.2", "proj_out",
)  # fmt: skip


def make(said: Options) -> None:
    """Train and write the LoRA's folder."""
    dev: Any = dev_alone(said)
    config = LoraConfig(
        r=RANK, lora_alpha=RANK, target_modules=list(TARGETS), exclude_modules=["proj_out"]
    )
    dev.add_adapter(config)
    own = nn.ParameterList(p for p in dev.parameters() if p.requires_grad)
    who = sample_identities(1, SEED, device()).expand(PICTURES // album.RENDERS, -1)
    shelf = album.paint(said.models, len(who), SEED, who)

    def with_lora(x: Tensor, sigma: Tensor, told: Words, guidance: Tensor, _: Tensor) -> Tensor:
        return velocity(dev, x, sigma, told, guidance)

    pupil = Pupil(
        "person",
        {"lora": own},
        shelf,
        lambda rows: torch.empty(len(rows), 0, 0, device=rows.device),
        with_lora,
    )
    learn(said, pupil, SECONDS)
    if rank() == 0:
        lora = convert_state_dict_to_diffusers(get_peft_model_state_dict(dev))
        half: dict[str, Any] = {k: v.half().cpu().contiguous() for k, v in lora.items()}
        folder: Path = said.models / FOLDER
        FluxPipeline.save_lora_weights(folder, transformer_lora_layers=half)
