"""From the tensors that the oracle keeps to the numbers that a run should hold, in float64."""

import math
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.every_pipeline import build
from tests.every_pipeline_calls import Call
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
            # a ControlNetUnion puts a token of its own, which says its mode, before them
            text = found.pop("text")[:, -16:]
            real = _real_tokens(call, branch)[..., None]
            found["text"] = text.where(real, torch.nan)
            found["padding"] = text.where(~real, torch.nan)
    return found


def _real_tokens(call: Call, branch: str) -> Tensor:
    """(sample, token): which text tokens are no padding, by the tokenizer's own mask."""
    words = call.negatives if branch == "negative" else call.prompts
    given = {"padding": "max_length", "max_length": 16, "truncation": True}
    mask = _flux_tokenizer()(words, return_tensors="pt", **given).attention_mask
    return mask.bool()


@cache
def _flux_tokenizer() -> Any:
    return build("FluxPipeline").tokenizer_2


def rms(tensor: Tensor) -> np.ndarray:
    """Root mean square over tokens of the L2 norm over channels, a number for each sample."""
    return tensor.double().square().sum(-1).nanmean(-1).sqrt().numpy()


def without_massive(tensor: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The same without each sample's two largest channels, and their share of the squares."""
    channels = tensor.double().square().nanmean(1).sort(dim=-1).values
    rest, whole = channels[:, :-2].sum(-1), channels.sum(-1)
    return rest.sqrt().numpy(), (1 - rest / whole).numpy()


def grid_of(call: Call, step: Step) -> tuple[int, int]:
    """(y, x) of the noisy image's tokens: FLUX has one for 2 x 2 latents, a U-Net's finest level for 1."""
    if call.is_flux:
        y, x = unpack(step.sample, step).shape[2:]
        return y // 2, x // 2
    y, x = step.sample.shape[2:]
    return y, x


def token_norms(tensor: Tensor, step: Step, grid: tuple[int, int]) -> np.ndarray:
    """L2 norm over channels of each token, where it lies in the finest grid; a coarse token is repeated."""
    norms = tensor.double().norm(dim=-1)
    if "img_ids" in step.passes[0].given:
        ids = step.passes[0].given["img_ids"][: norms.shape[1]].long()
        found = norms.new_full((len(norms), *grid), torch.nan)
        found[:, ids[:, 1], ids[:, 2]] = norms
        return found.numpy()
    times = round((grid[0] * grid[1] / norms.shape[1]) ** 0.5)
    coarse = norms.unflatten(1, (grid[0] // times, grid[1] // times))
    return coarse.repeat_interleave(times, 1).repeat_interleave(times, 2).numpy()


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


def contributions(one: Pass, controlled: bool) -> dict[str, np.ndarray]:
    """What adapters add in a pass over what it is added to, (row of the batch,), by place.

    controlled: whether there is a ControlNet.
    """
    found = {}
    for (quantity, block), whole in one.outputs.items():
        flux = block.startswith(("double", "single"))
        if quantity == "residual" and flux and controlled:
            found[f"{block}.image.controlnet"] = _residual(one, block, whole["image"])
        if quantity == "attention" and "image_prompt" in whole:
            base = whole["text"]
            if flux:
                base = one.outputs["residual", block]["image"] - whole["image_prompt"]
            found[f"{block}.image.ip_adapter:0"] = _ratio(whole["image_prompt"], base)
    if one.skips and controlled:
        names = [*(f"skip.{i:02d}" for i in range(len(one.skips) - 1)), "mid"]
        given = one.given.get("down_block_additional_residuals")
        added = (
            [torch.zeros_like(h) for h in one.skips]
            if given is None
            else [*given, one.given["mid_block_additional_residual"]]
        )
        for name, r, h in zip(names, added, one.skips, strict=True):
            found[f"{name}.image.controlnet"] = _ratio(r, h)
    return found


def _ratio(added: Tensor, base: Tensor) -> np.ndarray:
    norms = [tensor.double().flatten(1).norm(dim=1) for tensor in (added, base)]
    return (norms[0] / norms[1]).numpy()


def _residual(one: Pass, block: str, image: Tensor) -> np.ndarray:
    """What a ControlNet adds to the image tokens after a FLUX block, over what it is added to."""
    kind, index = block.split(".")
    kinds = [name.split(".")[0] for name in one.blocks]
    argument = "controlnet_block_samples" if kind == "double" else "controlnet_single_block_samples"
    given = one.given.get(argument)
    if not given:
        return np.zeros(len(image))
    added = given[int(index) // math.ceil(kinds.count(kind) / len(given))]
    return _ratio(added, image)
