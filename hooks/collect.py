"""From a finished pipeline call to what is stored of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from stepscope.hooks import assemble
from stepscope.hooks.assemble import Axes
from stepscope.hooks.call import Call, drawn_for
from stepscope.hooks.capture import Capture
from stepscope.hooks.estimate import Levels, clean_estimate, schedule
from stepscope.hooks.families import Tokens
from stepscope.hooks.finite import not_finite
from stepscope.hooks.labels import Label, stored_seed
from stepscope.hooks.layout import Layout, layout
from stepscope.hooks.observe import Observer
from stepscope.hooks.parts import Parts
from stepscope.hooks.returned import drawn_of, images_of, latents_of
from stepscope.hooks.vocabulary import BRANCHES, STREAMS


@dataclass(frozen=True)
class Collected:
    """A call as arrays, with a leading sample axis, and the variables of steps alone.

    sites: shapes (token, channel) of the whole tensors, whose values are on disk.
    """

    axes: Axes
    layout: Layout
    samples: Mapping[str, np.ndarray]
    steps: Mapping[str, np.ndarray]
    labels: Sequence[Label]


def axes_of(call: Call, parts: Parts, denoiser: Any, *, interrupted: int | None = None) -> Axes:
    """The axes of a call that has begun; its steps are those so far, or `interrupted` if that is more."""
    seen = {name for step in call.branches for names in step for name in names}
    tokens = next(iter(parts.denoiser.passes.values())).tokens
    streams = {"image", "text"}
    if parts.family.pads:
        streams.add("padding")
    if tokens.reference:
        streams.add("reference")
    if any(hasattr(p, "to_k_ip") for p in getattr(denoiser, "attn_processors", {}).values()):
        streams.add("image_prompt")
    if parts.adapter is not None:
        streams.add(parts.adapter.family.context)
    steps = max(len(call.ticks), interrupted or 0)
    return Axes(
        len(call.ticks[0].before),
        steps,
        tuple(b for b in BRANCHES if b in seen),
        tuple(s for s in STREAMS if s in streams),
        call.branches,
    )


def collect(
    pipe: Any,
    call: Call,
    parts: Parts,
    capture: Capture,
    axes: Axes,
    output: Any,
    *,
    face_seconds: float,
    adapters: str,
) -> Collected:
    """Bring a finished call to the host."""
    tokens = next(iter(parts.denoiser.passes.values())).tokens
    level, timesteps = schedule(pipe.scheduler, call.ticks, axes.steps)
    samples = _latents(pipe, call, parts, axes, output, level, tokens)
    samples |= assemble.norms(parts.denoiser, axes)
    if capture.level == "tokens":
        samples |= assemble.maps(parts.denoiser, axes, tokens.grid)
    if parts.added.injections:
        samples["contribution"] = assemble.contribution(parts.added, axes)
    if parts.adapter is not None:
        context = parts.adapter.family.context
        samples["adapter_attention_norm"] = assemble.adapter_norms(parts.adapter, axes, context)
    if capture.velocity:
        outputs = {
            place: parts.family.unpack(_of_image(seen.output, seen.tokens), seen.tokens)
            for place, seen in parts.denoiser.passes.items()
            if seen.output is not None
        }
        samples["velocity"] = assemble.stacked(outputs, axes)
    samples["step_seconds"] = _padded(np.tile(call.step_seconds(), (axes.batch, 1)), axes)
    samples["stage_seconds"] = np.tile(call.stage_seconds(face=face_seconds), (axes.batch, 1))
    image = images_of(output, call.arguments.get("output_type", "pil"))
    drawn = None
    if image is not None:
        samples["image"] = image
        drawn = drawn_of(output, call.decoded, axes.batch)
    samples["not_finite"] = not_finite(samples, parts, axes, drawn)
    found = outline(parts, capture, axes, samples["final_latents"].shape[1:], tokens, image)
    steps = {"sigma": level.sigma.numpy(), "timestep": timesteps.numpy()}
    return Collected(axes, found, samples, steps, _labels(call, parts, axes, adapters))


def outline(
    parts: Parts,
    capture: Capture,
    axes: Axes,
    latent: tuple[int, ...],
    tokens: Tokens,
    image: np.ndarray | None,
) -> Layout:
    """The layout of a call's samples; without whole tensors, whose shapes are known to the spool."""
    return layout(
        parts.denoiser.blocks,
        parts.adapter.blocks if parts.adapter is not None else [],
        capture,
        streams=axes.streams,
        steps=axes.steps,
        branches=axes.branches,
        latent=latent,
        image=image.shape[1:3] if image is not None else None,
        grid=tokens.grid,
        full={},
        injections=parts.added.injections,
    )


def _latents(
    pipe: Any,
    call: Call,
    parts: Parts,
    axes: Axes,
    output: Any,
    level: Levels,
    tokens: Tokens,
) -> dict[str, np.ndarray]:
    latents = torch.stack([tick.before for tick in call.ticks])
    outputs = torch.stack([tick.output for tick in call.ticks])
    ran = Levels(*(values[: len(latents)] for values in level))
    final = latents_of(output, call.arguments.get("output_type", "pil"))
    if final is None or final.shape != call.ticks[-1].after.shape:
        final = call.settled if call.settled is not None else call.ticks[-1].after
    estimate = clean_estimate(pipe.scheduler, ran, latents, outputs)
    made = {}
    for name, tensor in (("latents", latents), ("x0", estimate)):
        unpacked = parts.family.unpack(tensor, tokens).float().cpu().numpy()
        made[name] = _padded(unpacked.swapaxes(0, 1), axes)
    # a copy: the caller has these latents too, and may change them before they are written
    made["final_latents"] = parts.family.unpack(final, tokens).float().cpu().numpy().copy()
    if "callback_on_step_end" not in call.arguments and call.given is not None:
        made["final_latents"] = _decoded(call.given, pipe.vae.config, made["final_latents"])
    return made


def _decoded(given: torch.Tensor, vae: Any, after: np.ndarray) -> np.ndarray:
    """Final latents of a pipeline whose callback cannot be asked for them.

    What the VAE was given, in the scheduler's scale, unless that is only `after`, the latents after
    the last step, with a rounding: then `after` itself.
    """
    shift = vae.get("shift_factor") or 0.0
    final = ((given.float() - shift) * vae.scaling_factor).cpu().numpy()
    same = final.shape == after.shape and np.allclose(final, after, rtol=1e-2, atol=1e-2)
    return after if same or final.shape != after.shape else final


def _padded(values: np.ndarray, axes: Axes) -> np.ndarray:
    """(sample, step, ...) with NaN for the steps that did not run."""
    missing = axes.steps - values.shape[1]
    pad = [(0, 0), (0, missing)] + [(0, 0)] * (values.ndim - 2)
    return np.pad(values, pad, constant_values=np.nan) if missing else values


def _of_image(output: torch.Tensor, tokens: Tokens) -> torch.Tensor:
    """A transformer's output without that of reference tokens, which pipelines drop."""
    return output[:, : tokens.image] if tokens.reference else output


def _labels(call: Call, parts: Parts, axes: Axes, adapters: str) -> list[dict[str, Any]]:
    """What is told of each sample, before the caller's own words."""
    batch = axes.batch
    prompts, negatives = call.texts("prompt", batch), call.texts("negative_prompt", batch)
    lengths = _text_tokens(parts.denoiser, axes)
    labels = []
    for i in range(batch):
        seed, generator = _noise(call.noise, i, batch)
        labels.append(
            {
                "prompt": prompts[i],
                "negative_prompt": negatives[i] if "negative" in axes.branches else "",
                "seed": seed,
                "generator": generator,
                "batch_size": batch,
                "steps_run": len(call.ticks),
                "text_tokens": lengths[i],
                "arguments": call.described,
                "adapters": adapters,
            }
        )
    return labels


def _text_tokens(observer: Observer, axes: Axes) -> list[int]:
    """Real tokens of each sample's prompt; -1 where they are not known."""
    for place, branch, rows in axes.placed():
        lengths = observer.passes[place].lengths if place in observer.passes else None
        if axes.branches[branch] == "positive" and lengths is not None:
            return list(lengths[rows])
    return [-1] * axes.batch


def _noise(noise: Sequence[str], sample: int, batch: int) -> tuple[int, str]:
    """Seed (two's complement, -1 if it did not make this sample's noise alone) and what made it."""
    if not noise:
        return -1, ""
    if len(noise) != batch:
        return -1, noise[0] + drawn_for(batch)
    told = noise[sample]
    alone = told.startswith("seed ") and ", " not in told
    seed = int(told.removeprefix("seed ")) if alone else -1
    return stored_seed(seed), told
