"""Prove on the user's own models and versions that what the hooks read means what the table says."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn

from stepscope.hooks.capture import Capture
from stepscope.hooks.clock import Listener, Tick, controlnet_of, denoiser_of, listening
from stepscope.hooks.edits.proof import prove_edits
from stepscope.hooks.families import Family, family_of
from stepscope.hooks.finding import Finding
from stepscope.hooks.injections.check import InjectionCheck
from stepscope.hooks.injections.proof import added
from stepscope.hooks.recorder import record
from stepscope.hooks.returned import numbers_of
from stepscope.hooks.support import check_not_compiled
from stepscope.hooks.tally import Tally
from stepscope.hooks.wiring_check import WiringCheck

NORM_TOLERANCE = 1e-3  # float32 sums over millions of entries, against float64
GUIDANCE_TOLERANCE = 0.05  # half-precision outputs, subtracted


def verify(pipe: Any, call: Callable[[], Any]) -> list[Finding]:
    """Check a pipeline in runs of `call`: without hooks, with recording, and with edits.

    call: runs the pipeline with fixed seeds and returns its output, or the images alone; few steps are
        enough. Raises UnsupportedPipelineError for a pipeline that cannot be recorded.
    """
    check_not_compiled(pipe)
    denoiser = denoiser_of(pipe)
    plain = numbers_of(call())
    told, capture = _Told(pipe), Capture(velocity=True)
    witness = WiringCheck(denoiser, told.masks, capture.massive)
    apart = InjectionCheck(denoiser, controlnet_of(pipe))
    told.on_tick = [witness.begin_step, apart.begin_step]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        path = Path(folder) / "check.zarr"
        stack.enter_context(record(pipe, path, capture))
        stack.enter_context(listening(pipe, Listener(begin=told.begin, tick=told.tick)))
        told.attach(stack, family_of(denoiser))
        # the attentions that it runs again run before the witness looks whether they ran
        for handle in [*apart.attach(), *witness.attach()]:
            stack.callback(handle.remove)
        recorded = numbers_of(call())
        stack.close()
        run = xr.open_zarr(path).load()
    # What a block hands on is compared with what the next gets: equal up to one rounding.
    eps = torch.finfo(next(p.dtype for p in denoiser.parameters() if p.is_floating_point())).eps
    eps = max(eps, torch.finfo(torch.float32).eps)
    findings = _wiring(witness, 4 * eps)
    findings.append(_computed(witness))
    findings.append(_finite(run))
    findings.append(_norms(witness, run))
    if "contribution" in run:
        findings.append(added(apart, run, eps))
    if run.sizes["branch"] > 1:
        findings.append(_guidance(run, told.outputs, family_of(denoiser), witness))
    differ = int((plain != recorded).sum())
    findings.append(
        Finding(
            "recording on and off give the same bytes",
            plain.tobytes() == recorded.tobytes(),
            f"{differ} of {plain.size} numbers differ",
        )
    )
    return findings + prove_edits(pipe, call, plain, run.sizes["sample"])


def unscaled(guided: np.ndarray, branches: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """A guided output (channel, y, x) without the factor that each of its tokens was rescaled by.

    Weights of guidance add up to 1; those that give a token from the branches (branch, channel, y, x), to
    its factor.
    """
    if len(branches) < 2:
        return guided
    y, x = guided.shape[1:]
    sides = (y // grid[0], x // grid[1])
    made = guided.copy()
    for row in range(grid[0]):
        for column in range(grid[1]):
            where = np.s_[
                ...,
                row * sides[0] : (row + 1) * sides[0],
                column * sides[1] : (column + 1) * sides[1],
            ]
            of, token = branches[where].reshape(len(branches), -1), guided[where].reshape(-1)
            made[where] /= np.linalg.lstsq(of.T, token, rcond=None)[0].sum()
    return made


class _Told:
    """What a pipeline says of itself beside its denoiser: its prompts, and its guided outputs."""

    def __init__(self, pipe: Any) -> None:
        self.pipe, self.outputs = pipe, []
        self.on_tick: list[Callable[[], None]] = []
        self._arguments: Mapping[str, Any] = {}
        self._encoded: list[torch.Tensor] = []

    def attach(self, stack: ExitStack, family: Family) -> None:
        """See the masks that the text encoder is given, until `stack` closes."""
        encoder = getattr(self.pipe, str(family.text_encoder), None)
        if encoder is not None:
            hook = encoder.register_forward_pre_hook(self._encode, with_kwargs=True)
            stack.callback(hook.remove)

    def _encode(self, module: nn.Module, args: Any, kwargs: Mapping[str, Any]) -> None:
        if kwargs.get("attention_mask") is not None:
            self._encoded.append(kwargs["attention_mask"].bool().cpu())

    def begin(self, arguments: Mapping[str, Any]) -> None:
        self._arguments, self._encoded = arguments, []

    def tick(self, tick: Tick) -> None:
        self.outputs.append(tick.output)
        for begin in self.on_tick:
            begin()

    def masks(self, nth: int, rows: int) -> Sequence[torch.Tensor] | None:
        """Which tokens of each row's text are real, by the tokenizer's own mask; None for embeddings."""
        if nth < len(self._encoded):
            seen = self._encoded[nth]
            return [seen[i * len(seen) // rows] for i in range(rows)]
        name = "prompt" if nth == 0 else "negative_prompt"
        text = self._arguments.get(f"{name}_2") or self._arguments.get(name)
        if text is None:
            return None
        texts = [text] if isinstance(text, str) else list(text)
        longest = self._arguments["max_sequence_length"]
        made = self.pipe.tokenizer_2(
            texts, padding="max_length", max_length=longest, truncation=True
        )
        seen = torch.tensor(made["attention_mask"]).bool()
        return [seen[i * len(seen) // rows] for i in range(rows)]


def _wiring(witness: WiringCheck, tolerance: float) -> list[Finding]:
    found = []
    if witness.wiring is not None and witness.wiring.chain.count:
        claim = "a block's output plus the adapter's residual is the next block's input"
        found.append(_exact(claim, witness.wiring.chain, tolerance))
    if witness.wiring is not None:
        claim = "attention outputs split into the streams that they are named for"
        found.append(_exact(claim, witness.wiring.streams, tolerance))
    return found


def _exact(claim: str, tally: Tally, tolerance: float) -> Finding:
    holds = tally.count > 0 and tally.worst <= tolerance
    return Finding(claim, holds, f"{tally.count} comparisons, largest difference {tally.worst:.2g}")


def _computed(witness: WiringCheck) -> Finding:
    """No attention hands on a value of an earlier step (diffusers' caches do)."""
    idle = witness.idle
    first = next(iter(idle), "")
    detail = f"{len(idle)} did not, the first {first}" if idle else "all did, at every step"
    return Finding("every attention computed what it returned", not idle, detail)


def _finite(run: xr.Dataset) -> Finding:
    """Every number of the run is finite; where one is not, the other findings speak of the rest."""
    told = [f"sample {i}: {text}" for i, text in enumerate(run["not_finite"].values) if text]
    detail = "; ".join(told) or f"{run.sizes['sample']} samples"
    return Finding("every number is finite", not told, detail)


def _norms(witness: WiringCheck, run: xr.Dataset) -> Finding:
    """Stored norms of the first step against float64 ones of the raw tensors, as a multiset of branches.

    Which branch is which is what guidance tells; here each pass's rows must be some branch's.
    """
    worst, count = 0.0, 0
    samples = run.sizes["sample"]
    branches = [str(b) for b in run.branch.values]
    for (_, name, block, stream), rows in witness.norms.items():
        if stream not in run.stream.values:
            continue
        seen = run[name].sel(stream=stream).isel(step=0, block=block)  # (sample, branch)
        for part in rows.reshape(-1, samples).numpy():
            apart = [float(np.abs(seen.sel(branch=b) - part).max()) for b in branches]
            scale = max(float(np.abs(part).max()), 1e-12)
            worst = max(worst, np.nanmin(apart) / scale if np.isfinite(apart).any() else np.inf)
            count += 1
    detail = f"{count} norms and shares, largest relative difference {worst:.2g}"
    return Finding(
        "stored norms are those of the raw tensors", bool(worst <= NORM_TOLERANCE), detail
    )


def _guidance(
    run: xr.Dataset, outputs: Sequence[torch.Tensor], family: Family, witness: WiringCheck
) -> Finding:
    """The scheduler's input as a combination of the branches as they are named.

    Guidance goes towards the positive branch and away from the others: its weight is above 1, and
    theirs add up to less than 0. Were two branches exchanged, so would their weights be.
    """
    branches = [str(b) for b in run.branch.values]
    weights, left = [], 0.0
    for step, output in enumerate(outputs):
        guided = family.unpack(output, witness._now).float().cpu().numpy()
        for sample in range(len(guided)):
            whole = run.velocity[sample, step].values.astype(float)
            ran = np.isfinite(whole).all((1, 2, 3))
            found = guided[sample].astype(float)
            if family.rescaled:
                found = unscaled(found, whole[ran], witness._now.grid)
            of, target = whole.reshape(len(branches), -1), found.reshape(-1)
            if ran.sum() < 2 or not np.isfinite(target).all():
                continue
            solved, *_ = np.linalg.lstsq(of[ran].T, target, rcond=None)
            left = max(
                left, float(np.abs(of[ran].T @ solved - target).max() / np.abs(target).max())
            )
            weights.append(dict(zip(np.array(branches)[ran], solved, strict=True)))
    positive = [w["positive"] for w in weights]
    others = [sum(v for b, v in w.items() if b != "positive") for w in weights]
    apart = bool(weights) and min(positive) > 1 and max(others) < 0
    holds = bool(apart and left <= GUIDANCE_TOLERANCE)
    low, high = min(positive, default=np.nan), max(positive, default=np.nan)
    return Finding(
        "the branches are what they are named",
        holds,
        f"guidance recovered from the outputs: {low:.4g} times the positive branch to {high:.4g}, "
        f"{left:.2g} of the output not explained",
    )
