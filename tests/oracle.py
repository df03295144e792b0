"""An independent truth for one pipeline call: every number that a run should hold, in float64.

Which rows of a pass are which branch is found by what they are, not by where they stand: rows whose
text embedding is the prompt's are positive; those of the negative prompt are negative; rows that some
self-attention passes by, or whose latents are not the step's, are perturbed.
"""

import inspect
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from tests.every_pipeline import pipeline_class
from tests.every_pipeline_calls import NEGATIVES, PROMPTS, Call
from tests.every_pipeline_made import arguments_of, pipeline_of
from tests.oracle_numbers import (
    NO_TEXT,
    contributions,
    grid_of,
    rms,
    streams,
    token_norms,
    unpack,
    without_massive,
)
from tests.oracle_watch import Pass, Step, Watch

BRANCHES = ["positive", "negative", "perturbed", "image_only"]
STREAMS = ["image", "reference", "text", "padding", "image_prompt", "identity"]
BY_STREAM = ["attention_norm", "residual_norm", "residual_norm_without_massive", "massive_share"]


@dataclass
class Truth:
    """What a plain call returned, and the numbers behind it."""

    returned: Any
    expected: xr.Dataset


def truth(call: Call, pipe: Any) -> Truth:
    """Run the call without recording, and keep everything."""
    watch, arguments = Watch(pipe), arguments_of(call)
    with watch.on():
        returned = pipe(**arguments)
    return Truth(returned, _expected(call, watch, returned))


def embedding(call: Call, negative: bool) -> Tensor:
    """The text embedding that the denoiser gets for the prompts alone, or for the negative ones."""
    key = kinds(call.name), negative
    if key not in _embeddings:
        alone = Call(call.name)
        pipe, arguments = pipeline_of(alone), arguments_of(alone)
        watch = Watch(pipe)
        if call.name not in NO_TEXT:
            arguments["prompt"] = NEGATIVES if negative else PROMPTS
        with watch.on():
            pipe(**arguments)
        _embeddings[key] = watch.steps[0].passes[0].context
    return _embeddings[key][call.texts]


@cache
def kinds(name: str) -> str:
    """Types of the text encoders, as annotated: classes that share them share their embeddings."""
    asked = inspect.signature(pipeline_class(name).__init__).parameters
    encoders = [asked[n].annotation for n in ("text_encoder", "text_encoder_2") if n in asked]
    return " ".join(map(str, encoders)) or name


_embeddings: dict[tuple[str, bool], Tensor] = {}


Group = tuple[str, Pass, slice]
"""A branch, and the pass and its rows that are of it."""


def groups(call: Call, step: Step) -> list[Group]:
    """Everything that the denoiser ran in a step."""
    found = []
    batch = len(step.sample)
    for one in step.passes:
        for start in range(0, len(one.sample), batch):
            rows = slice(start, start + batch)
            found.append((_branch(call, step, one, rows), one, rows))
    return found


def _branch(call: Call, step: Step, one: Pass, rows: slice) -> str:
    positive = torch.allclose(one.context[rows], embedding(call, False), atol=1e-5)
    if not positive and call.name not in NO_TEXT:
        known = embedding(call, True)
        assert torch.allclose(one.context[rows], known, atol=1e-5), "rows of neither prompt"
    if one.skips_itself is not None and one.skips_itself[rows].all():
        return "perturbed"
    first = step.passes[0].sample
    if one is not step.passes[0] and not torch.equal(one.sample[rows], first[: len(step.sample)]):
        return "perturbed"
    if positive:
        return "positive"
    if "InstructPix2Pix" in call.name and one.sample[rows, 4:].any():
        return "image_only"
    return "negative"


def _expected(call: Call, watch: Watch, returned: Any) -> xr.Dataset:
    steps, first = watch.steps, watch.steps[0]
    shape = unpack if call.is_flux else lambda latents, step: latents
    space = ("channel", "y", "x")
    ran = [groups(call, step) for step in steps]
    made: dict[str, Any] = {
        "final_latents": (("sample", *space), _final(call, watch, returned).double().numpy()),
        "timestep": (("step",), np.array([step.timestep for step in steps])),
        "velocity": (("sample", "step", "branch", *space), _velocity(steps, ran, shape)),
    }
    for name, field in (("latents", "sample"), ("x0", "clean")):
        values = [shape(getattr(step, field), step).double().numpy() for step in steps]
        made[name] = (("sample", "step", *space), np.stack(values, 1))
    coordinates = {"branch": BRANCHES, "stream": STREAMS, "block": first.passes[0].blocks}
    for name, values in _norms(call, steps, ran, coordinates["block"]).items():
        last = {5: ("stream",), 6: ("token_y", "token_x")}.get(values.ndim, ())
        made[name] = (("sample", "step", "branch", "block", *last), values)
    added = [
        [(b, rows, contributions(one, watch.control is not None)) for b, one, rows in step]
        for step in ran
    ]
    if places := [*added[0][0][2]]:
        coordinates["injection"] = places
        where = ("sample", "step", "branch", "injection")
        made["contribution"] = (where, _contribution(added, places, len(first.sample)))
    if watch.control is not None:
        coordinates["adapter_block"] = first.control[0].blocks
        inside = _inside(call, steps, coordinates["adapter_block"])
        made["adapter_attention_norm"] = (("sample", "step", "adapter_block", "stream"), inside)
    if not call.latents:
        made["image"] = (("sample", "row", "column", "rgb"), np.stack(first_of(returned)))
    return xr.Dataset(made, coordinates)


def _contribution(
    added: list[list[tuple[str, slice, dict[str, np.ndarray]]]], places: list[str], batch: int
) -> np.ndarray:
    found = np.full((batch, len(added), len(BRANCHES), len(places)), np.nan)
    for s, step in enumerate(added):
        for branch, rows, values in step:
            for i, place in enumerate(places):
                found[:, s, BRANCHES.index(branch), i] = values[place][rows]
    return found


def _velocity(steps: list[Step], ran: list[list[Group]], shape: Any) -> np.ndarray:
    latents = shape(steps[0].sample, steps[0])
    found = np.full((len(latents), len(steps), len(BRANCHES), *latents.shape[1:]), np.nan)
    for s, step in enumerate(steps):
        for branch, one, rows in ran[s]:
            noisy = one.output[rows][:, : step.sample.shape[1]]
            found[:, s, BRANCHES.index(branch)] = shape(noisy, step)
    return found


def _norms(
    call: Call, steps: list[Step], ran: list[list[Group]], blocks: list[str]
) -> dict[str, np.ndarray]:
    """Every variable along (sample, step, branch, block) and, if it has streams, stream."""
    sizes = len(steps[0].sample), len(steps), len(BRANCHES), len(blocks)
    grid = grid_of(call, steps[0])
    found = {name: np.full((*sizes, len(STREAMS)), np.nan) for name in BY_STREAM}
    found |= {
        f"{q}_token_norm": np.full((*sizes, *grid), np.nan) for q in ("attention", "residual")
    }
    for s, step in enumerate(steps):
        for branch, one, rows in ran[s]:
            b = BRANCHES.index(branch)
            for (quantity, block), whole in one.outputs.items():
                i, cut = blocks.index(block), {name: t[rows] for name, t in whole.items()}
                for name, tensor in streams(call, step, cut, branch).items():
                    where = slice(None), s, b, i, STREAMS.index(name)
                    found[f"{quantity}_norm"][where] = rms(tensor)
                    if quantity == "residual":
                        rest, share = without_massive(tensor)
                        found["residual_norm_without_massive"][where] = rest
                        found["massive_share"][where] = share
                    if name == "image":
                        found[f"{quantity}_token_norm"][:, s, b, i] = token_norms(
                            tensor, step, grid
                        )
    return found


def _inside(call: Call, steps: list[Step], blocks: list[str]) -> np.ndarray:
    """Attention norms inside a ControlNet's own blocks, of the rows that read the prompt."""
    batch = len(steps[0].sample)
    found = np.full((batch, len(steps), len(blocks), len(STREAMS)), np.nan)
    prompt = embedding(call, False)
    for s, step in enumerate(steps):
        for one in step.control:
            for start in range(0, len(one.sample), batch):
                rows = slice(start, start + batch)
                if torch.allclose(one.context[rows], prompt, atol=1e-5):
                    for block in blocks:
                        whole = {k: t[rows] for k, t in one.outputs["attention", block].items()}
                        for name, tensor in streams(call, step, whole, "positive").items():
                            where = blocks.index(block), STREAMS.index(name)
                            found[:, s, *where] = rms(tensor)
    return found


def first_of(returned: Any) -> Any:
    """The images of what a pipeline returns, as an object or as a tuple."""
    return next(iter(returned.values())) if isinstance(returned, dict) else returned[0]


def _final(call: Call, watch: Watch, returned: Any) -> Tensor:
    """The latents that were returned, or those that the VAE was given, in the scheduler's scale."""
    last = watch.steps[-1]
    if call.latents:
        given = first_of(returned)
        return unpack(given, last) if call.is_flux else given
    assert watch.decoded is not None
    config = watch.pipe.vae.config
    return (watch.decoded - (config.shift_factor or 0.0)) * config.scaling_factor
