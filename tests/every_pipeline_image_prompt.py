"""An IP-Adapter of random weights, and the picture that it is given."""

import re
from typing import Any

import torch
from diffusers.models import ImageProjection

from tests.every_pipeline_calls import Call, noise, picture
from tests.models import randomised


def image_prompt(call: Call) -> dict[str, Any]:
    """The picture as an embedding where the class takes that, of one picture for each image."""
    # the two classes pass embeddings on only where a picture is given too
    if re.search("LDM3D|InstructPix2Pix", call.name):
        return {"ip_adapter_image": picture(3)}
    embeds = noise(2, 1, 32, seed=9)
    if call.is_flux:
        return {
            "ip_adapter_image_embeds": [embeds],
            "negative_ip_adapter_image_embeds": [embeds.flip(0)],
        }
    rows = [embeds.flip(0), embeds] if "guided" in call.words else [embeds]
    return {"ip_adapter_image_embeds": [torch.cat(rows)]}


def load_image_prompt(model: Any, scale: float = 0.7) -> None:
    """An IP-Adapter of random weights for a U-Net or a FLUX transformer, read as its state dict is."""
    flux = not hasattr(model.config, "cross_attention_dim")
    width = model.config.joint_attention_dim if flux else model.config.cross_attention_dim
    names = [n for n in model.attn_processors if re.search("^transformer_blocks|attn2", n)]
    inside: dict[str, torch.Tensor] = {}
    for index, name in enumerate(names):
        attention = model.get_submodule(name.removesuffix(".processor"))
        key = index if flux else 2 * index + 1
        for seed, which in enumerate(("to_k_ip", "to_v_ip")):
            weight = noise(attention.to_q.out_features, width, seed=2 * index + seed) - 0.5
            inside[f"{key}.{which}.weight"] = weight
            if flux:
                inside[f"{key}.{which}.bias"] = weight[:, 0]
    project = randomised(ImageProjection(32, cross_attention_dim=width, num_image_text_embeds=4))
    projected = {
        key.replace("image_embeds", "proj"): value for key, value in project.state_dict().items()
    }
    state = {"image_proj": projected, "ip_adapter": inside}
    model._load_ip_adapter_weights([state], low_cpu_mem_usage=False)
    for processor in model.attn_processors.values():
        if hasattr(processor, "to_k_ip"):
            processor.scale = [scale]
