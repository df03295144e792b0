"""From the tapes of one pipeline call to the arrays of its samples."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from einops import rearrange

from hooks.call import Call
from hooks.capture import Capture
from hooks.contribution import Residuals
from hooks.errors import NonFiniteError, UnsupportedPipelineError
from hooks.estimate import Levels, clean_estimate, levels
from hooks.layout import Layout, layout
from hooks.observe import PASS_STREAMS, QUANTITIES, Observer
from hooks.vocabulary import STREAMS


@dataclass(frozen=True)
class Parts:
    """Who watched the call: the denoiser's observer and, with an adapter, its observer and residuals.

    context: what the second stream of the adapter's network is, `text` or `identity`.
    """

    denoiser: Observer
    adapter: Observer | None
    residuals: Residuals | None
    context: str


@dataclass(frozen=True)
class Assembled:
    """A call as arrays: its layout, variables with a leading sample axis, and those of steps alone."""

    layout: Layout
    samples: Mapping[str, np.ndarray]
    steps: Mapping[str, np.ndarray]


def assemble(
    pipe: Any, call: Call, parts: Parts, capture: Capture, face_seconds: float
) -> Assembled:
    """Collect a finished call on the host. Raises NonFiniteError if a latent is not finite."""
    latents = torch.stack([tick.before for tick in call.ticks])
    outputs = torch.stack([tick.output for tick in call.ticks])
    steps, batch = latents.shape[:2]
    timesteps = torch.stack([torch.as_tensor(tick.timestep).float().cpu() for tick in call.ticks])
    level = levels(pipe.scheduler, [tick.index for tick in call.ticks], timesteps)
    grid = parts.denoiser.grid or _packed_grid(parts.denoiser.image_ids)
    unpack = _unpack_flux(grid) if latents.ndim == 4 else _samples_first

    made: dict[str, torch.Tensor] = {
        "latents": unpack(latents),
        "final_latents": unpack(call.ticks[-1].after[None])[:, 0],
        "x0": unpack(clean_estimate(pipe.scheduler, level, latents, outputs)),
    }
    norms = _by_branch(parts.denoiser.norms.read(steps), batch)
    norms = norms.unflatten(3, (len(QUANTITIES), -1, len(PASS_STREAMS)))
    _refuse_non_finite(made["latents"], made["final_latents"], norms, parts.denoiser, level)
    made |= _norms(parts, norms, steps, batch, grid)
    if capture.velocity:
        velocity = _stack_passes(parts.denoiser.outputs, steps, batch)
        made["velocity"] = torch.stack([unpack(v) for v in velocity.unbind(1)], 2)
    for site, seen in parts.denoiser.whole.items():
        tensor = _stack_passes(seen, steps, batch)
        made[site] = rearrange(tensor, "step branch sample t c -> sample step branch t c")

    samples = {name: value.float().cpu().numpy() for name, value in made.items()}
    samples["step_seconds"] = np.tile(call.step_seconds(), (batch, 1))
    samples["stage_seconds"] = np.tile(call.stage_seconds(face=face_seconds), (batch, 1))
    if call.image is not None:
        pixels = pipe.image_processor.postprocess(call.image, output_type="np")
        samples["image"] = (pixels * 255).round().astype(np.uint8)
    found = layout(
        parts.denoiser.blocks,
        parts.adapter.blocks if parts.adapter is not None else [],
        capture,
        context=parts.context,
        steps=steps,
        branches=norms.shape[2],
        latent=samples["final_latents"].shape[1:],
        image=samples["image"].shape[1:3] if call.image is not None else None,
        grid=grid,
        full={site: samples[site].shape[3:] for site in parts.denoiser.whole},
    )
    return Assembled(found, samples, {"sigma": level.sigma.numpy(), "timestep": timesteps.numpy()})


def _norms(
    parts: Parts, norms: torch.Tensor, steps: int, batch: int, grid: tuple[int, int]
) -> dict[str, torch.Tensor]:
    """Every variable that is made of norms, sample first."""
    streams = STREAMS[: 3 if parts.adapter is not None and parts.context == "identity" else 2]
    rms = norms * _per_token(parts.denoiser).to(norms.device)
    attention, residual = (_spread(q, PASS_STREAMS, streams) for q in rms.unbind(3))
    made = {"attention_norm": attention, "residual_norm": residual}
    if parts.denoiser.maps is not None:
        maps = _by_branch(parts.denoiser.maps.read(steps), batch)
        maps = maps.unflatten(3, (len(QUANTITIES), -1)).unflatten(-1, grid)
        made["attention_token_norm"], made["residual_token_norm"] = maps.unbind(3)
    if parts.residuals is not None:
        made["contribution"] = parts.residuals.ratios(norms[:, :, :, 1, :, 0])
    if parts.adapter is not None:
        buffers = parts.adapter.norms.read(steps)
        if not buffers:  # an adapter that never ran
            shape = (batch, steps, len(parts.adapter.blocks), len(streams))
            return made | {"adapter_attention_norm": torch.full(shape, torch.nan)}
        inside = _by_branch(buffers, batch)[:, :, 0]  # the positive branch
        inside = inside.unflatten(2, (len(QUANTITIES), -1, len(PASS_STREAMS)))
        inside = (inside * _per_token(parts.adapter).to(inside.device))[:, :, 0]
        made["adapter_attention_norm"] = _spread(inside, ("image", parts.context), streams)
    return made


def _per_token(observer: Observer) -> torch.Tensor:
    """1 / sqrt(tokens) of every slot: turns an L2 norm over tokens and channels into a mean square root."""
    tokens = torch.tensor(observer.norms.tokens).float()
    return tokens.rsqrt().unflatten(0, (len(QUANTITIES), -1, len(PASS_STREAMS)))


def _spread(norms: torch.Tensor, have: Sequence[str], want: Sequence[str]) -> torch.Tensor:
    """Streams of the last axis put at their place among all streams of the run; others are NaN."""
    spread = norms.new_full((*norms.shape[:-1], len(want)), torch.nan)
    for i, stream in enumerate(have):
        spread[..., want.index(stream)] = norms[..., i]
    return spread


def _by_branch(values: Mapping[int, torch.Tensor], batch: int) -> torch.Tensor:
    """(step, slot, pass batch, ...) of each pass to (sample, step, branch, slot, ...).

    Two passes are positive, negative. One pass over twice the samples is a U-Net's classifier-free
    guidance: negative first (StableDiffusionPipeline: torch.cat([negative, positive])).
    """
    passes = list(values.values())
    if len(passes) == 1 and passes[0].shape[2] == 2 * batch:
        negative, positive = passes[0].chunk(2, dim=2)
        passes = [positive, negative]
    if any(p.shape[2] != batch for p in passes):
        raise UnsupportedPipelineError(
            f"the denoiser ran on {passes[0].shape[2]} samples for {batch} latents: only one pass a "
            "branch, or both branches in one batch, is known"
        )
    return rearrange(passes, "branch step slot sample ... -> sample step branch slot ...")


def _stack_passes(
    seen: Mapping[tuple[int, int], torch.Tensor], steps: int, batch: int
) -> torch.Tensor:
    """{(branch, step): (pass batch, ...)} to (step, branch, sample, ...); NaN where no pass ran."""
    first = next(iter(seen.values()))
    branches = range(1 + max(branch for branch, _ in seen))
    missing = torch.full_like(first, torch.nan)
    stacked = torch.stack(
        [torch.stack([seen.get((b, s), missing) for s in range(steps)]) for b in branches], 1
    )
    if stacked.shape[2] == 2 * batch:
        negative, positive = stacked.chunk(2, dim=2)
        stacked = torch.cat([positive, negative], dim=1)
    return stacked


def _packed_grid(image_ids: torch.Tensor | None) -> tuple[int, int]:
    """(token_y, token_x) of FLUX's image tokens, from their position ids (token, 3)."""
    assert image_ids is not None
    ids = image_ids if image_ids.ndim == 2 else image_ids[0]
    return int(ids[:, 1].max()) + 1, int(ids[:, 2].max()) + 1


def _unpack_flux(grid: tuple[int, int]) -> Callable[[torch.Tensor], torch.Tensor]:
    """FLUX packs 2 x 2 latents into a token, channel first (FluxPipeline._pack_latents)."""
    y, x = grid
    pattern = "step sample (y x) (channel p q) -> sample step channel (y p) (x q)"
    return lambda packed: rearrange(packed, pattern, y=y, x=x, p=2, q=2)


def _samples_first(latents: torch.Tensor) -> torch.Tensor:
    return rearrange(latents, "step sample channel y x -> sample step channel y x")


def _refuse_non_finite(
    latents: torch.Tensor,
    final: torch.Tensor,
    norms: torch.Tensor,
    observer: Observer,
    level: Levels,
) -> None:
    """Raise NonFiniteError that names the first step and block where something was not finite."""
    after = torch.cat([latents[:, 1:], final[:, None]], 1)
    bad = ~torch.isfinite(after).flatten(2).all(2)
    if not bad.any():
        return
    step = int(bad.any(0).nonzero()[0])
    residual = norms[:, step, :, 1, :, 0]  # (sample, branch, block) of the image stream
    blocks = (~torch.isfinite(residual)).any(0).any(0).nonzero()
    where = (
        f"block {observer.blocks[int(blocks[0])].name}"
        if len(blocks)
        else "no block (the output alone)"
    )
    raise NonFiniteError(
        f"latents are not finite after step {step} (sigma {float(level.sigma[step]):.3f}), in batch "
        f"places {bad[:, step].nonzero().flatten().tolist()}; first in {where}. "
        "A wider dtype (backbone.dtype=bfloat16 or float32) is the usual cure"
    )
