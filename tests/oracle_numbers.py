"""From the tensors that the oracle keeps to the numbers that a run should hold, in float64."""

import math
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.every_pipeline_calls import NEGATIVES, PROMPTS, Call
from tests.oracle_watch import Pass, Step

NO_TEXT = ("StableDiffusionImageVariationPipeline", "PaintByExamplePipeline")
"""Classes whose cross-attention is to a picture's embedding."""


def streams(call: Call, step: Step, whole: dict[str, Tensor], branch: str) -> dict[str, Tensor]:
    """Streams of one group with reference tokens and padding apart: name -> (sample, token, channel).

    Padding is as many tokens a sample as its own prompt leaves: other samples' places are NaN.
    """
    found = dict(whole)
    if call.name in NO_TEXT and "text" in found:
        found["image_prompt"] = found.pop("text")
    if call.is_flux:
        tokens = step.sample.shape[1]
        image = found.pop("image")
        found["image"] = image[:, :tokens]
        if image.shape[1] > tokens:
            found["reference"] = image[:, tokens:]
        if "text" in found:
            text = found.pop("text")
            real = _real_tokens(call, branch)[..., None]
            found["text"] = text.where(real, torch.nan)
            found["padding"] = text.where(~real, torch.nan)
    return found


def _real_tokens(call: Call, branch: str) -> Tensor:
    """(sample, token): which text tokens are no padding, by the tokenizer's own mask."""
    words = NEGATIVES if branch == "negative" else PROMPTS
    given = {"padding": "max_length", "max_length": 16, "truncation": True}
    mask = _flux_tokenizer()(words, return_tensors="pt", **given).attention_mask
    return mask.bool()


@cache
def _flux_tokenizer() -> Any:
    return Call("FluxPipeline").pipe().tokenizer_2


def rms(tensor: Tensor) -> np.ndarray:
    """Root mean square over tokens of the L2 norm over channels, a number for each sample."""
    return tensor.double().square().sum(-1).nanmean(-1).sqrt().numpy()


def without_massive(tensor: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The same without each sample's two largest channels, and their share of the squares."""
    channels = tensor.double().square().nanmean(1).sort(dim=-1).values
    rest, whole = channels[:, :-2].sum(-1), channels.sum(-1)
    return rest.sqrt().numpy(), (1 - rest / whole).numpy()


def unpack(tokens: Tensor, step: Step) -> Tensor:
    """FLUX's (sample, token, 4 channels) to (sample, channel, y, x), each token where its ids say."""
    ids = step.passes[0].given["img_ids"][: tokens.shape[1]].long()
    y, x = ids[:, 1], ids[:, 2]
    channels = tokens.shape[2] // 4
    grid = tokens.new_full(
        (len(tokens), channels, 2 * int(y.max() + 1), 2 * int(x.max() + 1)), torch.nan
    )
    parts = tokens.unflatten(2, (channels, 2, 2))
    for p in (0, 1):
        for q in (0, 1):
            grid[:, :, 2 * y + p, 2 * x + q] = parts[..., p, q].transpose(1, 2)
    return grid


def contribution(one: Pass, block: str, image: Tensor) -> np.ndarray:
    """What a ControlNet adds to the image tokens after a FLUX block, over what it is added to."""
    kind, index = block.split(".")
    kinds = [name.split(".")[0] for name in one.blocks]
    argument = "controlnet_block_samples" if kind == "double" else "controlnet_single_block_samples"
    given = one.given.get(argument)
    if not given:
        return np.zeros(len(image))
    added = given[int(index) // math.ceil(kinds.count(kind) / len(given))]
    ratio = added.double().flatten(1).norm(dim=1) / image.double().flatten(1).norm(dim=1)
    return ratio.numpy()
