"""Train InstantID on frozen sdxl: `python -m pocket.make --only instantid`.

Its two networks of the published form, small: the image branch, whose resampler reads the conditioning
encoder's embedding as it comes, and IdentityNet, a ControlNet that reads the face's tokens in place of the
text and sees the drawn keypoints. Losses as image_prompt.py's for faces.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.embeddings import IPAdapterPlusImageProjection
from torch import Tensor, nn

from stepscope.pocket import folders
from stepscope.pocket.muon import Muon, by_shape
from stepscope.pocket.process import Options, autocast, device, on_device, rank
from stepscope.pocket.references import photos
from stepscope.pocket.training import Stage
from stepscope.pocket.unet import gallery, layout
from stepscope.pocket.unet.base import unsaid
from stepscope.pocket.unet.critic import Critic
from stepscope.pocket.unet.diffusion import TIMES, alphas, level, noised
from stepscope.pocket.unet.image_prompt import (
    CRITIC_FROM,
    CRITIC_TO,
    DROPPED,
    DROPPED_IMAGE,
)
from stepscope.pocket.unet.image_prompt_file import crossed, parts
from stepscope.pocket.unet.reading import Words
from stepscope.pocket.world import SIZE, sample_identities
from stepscope.probes.adapters.instantid_network import BRANCH, NETWORK, IdentityNet
from stepscope.probes.control import drawn

SECONDS = 200.0
BATCH, RATE, MUON, PEOPLE = 320, 1e-3, 2.0, 10_000
FOLDER = "instantid"
FACE, QUERIES, HIDDEN, HEAD = 512, 8, 64, 64
# The resampler that diffusers builds for a file of this form has four layers.
RESAMPLER = {"hidden_dims": HIDDEN, "depth": 4, "dim_head": HEAD, "heads": 1}


def make(said: Options) -> None:
    """Train and write the folder."""
    kind = layout.LAYOUTS["sdxl"]
    pictures = gallery.load(said, kind.name, people=PEOPLE)
    who = sample_identities(len(pictures.portraits), gallery.seed(said), device())
    seen, drawings = photos(said, who), drawn_keypoints(pictures.keypoints)
    frozen, words = layout.load(said.models, kind)
    unet: Any = frozen
    resampler, network = new_resampler(unet), new_network(unet)
    unet._load_ip_adapter_weights([branch(unet, resampler)])
    unet.to(device())
    own = parts(unet)
    for parameter in own.parameters():
        parameter.requires_grad_(True)
    critic = Critic(said, "faces")
    stage = Stage(
        FOLDER, {"own": own, "network": network}, said, rate=RATE, seconds=SECONDS, ema=0.995, compact=True,
        every=50,
    )  # fmt: skip
    stage.optimiser = Muon(*by_shape(stage.parameters), RATE, ratio=MUON)
    size, kept = 4 if said.smoke else BATCH, alphas()
    for progress in stage:
        rows = pictures.draw(size)
        person = rows // gallery.EACH
        face = seen.raw[person, torch.randint(seen.raw.shape[1], rows.shape, device=device())]
        dropped = torch.rand(size, device=device()) < DROPPED_IMAGE
        face = torch.where(dropped[:, None], 0.0, face)
        clean = pictures.latents[rows].float()
        time = torch.randint(TIMES, (size,), device=device())
        noise = torch.randn_like(clean)
        with torch.no_grad():
            silent = torch.rand(size, device=device()) < DROPPED
            told = unsaid(words(pictures.sentence_ids(rows)), words.nothing(size), silent)
        x = noised(clean, noise, kept[time])
        found = predicted(unet, network, x, time, told, face, drawings[rows].float() / 255)
        error = ((found - noise) ** 2 * pictures.face_weight(rows)).mean((1, 2, 3))
        apart = (critic(x, found, time, pictures, rows) * ~dropped).mean()
        weight = CRITIC_FROM + progress * (CRITIC_TO - CRITIC_FROM)
        loss = (error * level(kept[time])).mean()
        stage.descend(loss + weight * apart, noise=error.mean(), apart=apart)
    stage.finish()
    if rank() == 0:
        save(said.models / FOLDER, unet, network)


def predicted(
    unet: Any,
    network: IdentityNet,
    x: Tensor,
    time: Tensor,
    words: Words,
    face: Tensor,
    drawing: Tensor,
) -> Tensor:
    """The noise with both networks on, float32. face: (b, 512); drawing: (b, 3, 128, 128) in [0, 1]."""
    sizes = x.new_tensor(layout.TIME_IDS).expand(len(x), -1)
    more = {"text_embeds": words.pooled, "time_ids": sizes}
    with autocast():
        (tokens,) = unet.encoder_hid_proj([face[:, None, None]])
        network.identity = tokens[:, 0]
        down, middle = network(
            x,
            time,
            encoder_hidden_states=words.tokens,
            controlnet_cond=drawing,
            added_cond_kwargs=more,
            return_dict=False,
        )
        return unet(
            x,
            time,
            words.tokens,
            added_cond_kwargs=more | {"image_embeds": [face[:, None, None]]},
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
            return_dict=False,
        )[0].float()


def new_resampler(unet: Any) -> IPAdapterPlusImageProjection:
    """An untrained projection of a face as it comes, whose numbers are about 1."""
    return IPAdapterPlusImageProjection(
        FACE, unet.config.cross_attention_dim, num_queries=QUERIES, **RESAMPLER
    )


def new_network(unet: Any) -> IdentityNet:
    """IdentityNet with what fits of the U-Net's own weights; only its middle attends to the face."""
    config = unet.config
    same = (
        "in_channels", "block_out_channels", "layers_per_block", "norm_num_groups",
        "attention_head_dim", "cross_attention_dim", "use_linear_projection", "addition_embed_type",
        "addition_time_embed_dim", "projection_class_embeddings_input_dim",
    )  # fmt: skip
    network = IdentityNet(
        **{name: config[name] for name in same},
        down_block_types=("DownBlock2D",) * 3,
        conditioning_embedding_out_channels=(16, 32, 64),  # one latent is four pixels
    )
    own, kept = network.state_dict(), unet.state_dict()
    fits = {k: v for k, v in kept.items() if k in own and own[k].shape == v.shape}
    network.load_state_dict(fits, strict=False)
    return on_device(network).train()


def branch(unet: Any, resampler: nn.Module) -> dict[str, dict[str, Tensor]]:
    """The image branch as its published file holds it; untrained, it adds nothing."""
    attention: dict[str, Tensor] = {}
    for number, name in crossed(unet):
        of = unet.get_submodule(name.removesuffix(".processor"))
        attention[f"{number}.to_k_ip.weight"] = of.to_k.weight.detach().clone()
        attention[f"{number}.to_v_ip.weight"] = torch.zeros_like(of.to_v.weight)
    return {
        "image_proj": folders.published_projection(resampler.state_dict()),
        "ip_adapter": attention,
    }


def drawn_keypoints(keypoints: Tensor) -> Tensor:
    """InstantID's drawing of keypoints (n, 5, 2) in pixels, (n, 3, 128, 128) uint8."""

    def one(points: np.ndarray) -> Tensor:
        return torch.from_numpy(np.asarray(drawn(points, (SIZE, SIZE))).copy()).permute(2, 0, 1)

    with ThreadPoolExecutor(8) as pool:
        return torch.stack(list(pool.map(one, keypoints.cpu().numpy()))).to(device())


def save(folder: Path, unet: Any, network: IdentityNet) -> None:
    """The published folder: ControlNetModel, and ip-adapter.bin."""
    folders.write_half(network, folder / NETWORK)
    (resampler,) = unet.encoder_hid_proj.image_projection_layers
    state = branch(unet, resampler)
    for number, name in crossed(unet):
        processor = unet.attn_processors[name]
        state["ip_adapter"][f"{number}.to_k_ip.weight"] = processor.to_k_ip[0].weight
        state["ip_adapter"][f"{number}.to_v_ip.weight"] = processor.to_v_ip[0].weight
    half = {
        part: {k: v.detach().half().cpu().contiguous() for k, v in weights.items()}
        for part, weights in state.items()
    }
    torch.save(half, folder / BRANCH)
