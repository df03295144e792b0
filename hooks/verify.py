"""Prove on the user's own models and versions that what the hooks read means what the table says."""

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hooks.capture import Capture
from hooks.clock import Listener, Tick, denoiser_of, listening
from hooks.recorder import record
from hooks.store import Run
from hooks.witness import Tally, Witness

NORM_TOLERANCE = 1e-3  # float32 sums over millions of entries, against float64
GUIDANCE_TOLERANCE = 0.05  # half-precision outputs, subtracted


@dataclass(frozen=True)
class Finding:
    """One claim that was checked: whether it holds, and what was measured."""

    claim: str
    holds: bool
    detail: str


def verify(pipe: Any, call: Callable[[], Any]) -> list[Finding]:
    """Check a pipeline in two runs of `call`, without and with recording.

    call: runs the pipeline with fixed seeds and returns its images as an array; few steps are
        enough. Raises UnsupportedPipelineError for a pipeline that cannot be recorded.
    """
    denoiser = denoiser_of(pipe)
    plain = np.asarray(call())
    witness, guidance = Witness(denoiser), _Guidance()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        path = Path(folder) / "check.zarr"
        stack.enter_context(record(pipe, path, Capture()))
        for handle in witness.attach():
            stack.callback(handle.remove)
        guidance.watch(stack, pipe)
        recorded = np.asarray(call())
        stack.close()
        run = Run.open(path)
        stored = {name: run.read(name) for name in ("attention_norm", "residual_norm")}
        axes = {name: [str(v) for v in run.read(name)] for name in ("branch", "stream")}
    # What a block hands on is compared with what the next gets: equal up to one rounding.
    eps = torch.finfo(next(denoiser.parameters()).dtype).eps
    findings = []
    if witness.chain.count:
        claim = "a block's output plus the adapter's residual is the next block's input"
        findings.append(_exact(claim, witness.chain, 4 * eps))
    claim = "attention outputs split into the streams that they are named for"
    findings.append(_exact(claim, witness.streams, 4 * eps))
    findings.append(_norms(witness, stored, axes))
    if guidance.scales:
        findings.append(guidance.finding())
    differ = int((plain != recorded).sum())
    findings.append(
        Finding(
            "recording on and off give the same bytes",
            plain.tobytes() == recorded.tobytes(),
            f"{differ} of {plain.size} numbers differ",
        )
    )
    return findings


def _exact(claim: str, tally: Tally, tolerance: float) -> Finding:
    holds = tally.count > 0 and tally.worst <= tolerance
    return Finding(claim, holds, f"{tally.count} comparisons, largest difference {tally.worst:.2g}")


def _norms(witness: Witness, stored: dict[str, np.ndarray], axes: dict[str, list[str]]) -> Finding:
    """Stored norms of the first step against float64 ones of the raw tensors."""
    worst = 0.0
    for (quantity, block, stream), norms in witness.norms.items():
        if stream not in axes["stream"]:
            continue
        # (sample, step, branch, block, stream)
        seen = stored[f"{quantity}_norm"][:, 0, :, block, axes["stream"].index(stream)]
        samples = len(seen)
        # One batch holds negative, then positive samples if it is a U-Net's guidance.
        branches = len(norms) // samples
        expected = norms.reshape(branches, samples).flip(0).T.numpy()
        worst = max(worst, float(np.abs(seen[:, :branches] / expected - 1).max()))
    detail = f"{len(witness.norms)} norms, largest relative difference {worst:.2g}"
    return Finding("stored norms are those of the raw tensors", worst <= NORM_TOLERANCE, detail)


class _Guidance:
    """Recovers the guidance scale s of every step: output = negative + s (positive - negative)."""

    def __init__(self) -> None:
        self.scales: list[float] = []
        self._passes: list[torch.Tensor] = []

    def watch(self, stack: ExitStack, pipe: Any) -> None:
        """Follow the denoiser's passes and the scheduler's steps until `stack` closes."""
        stack.enter_context(listening(pipe, Listener(tick=self._tick)))

        def after(module: Any, args: Any, output: Any) -> None:
            self._passes.append(output[0] if isinstance(output, tuple) else output.sample)

        stack.callback(denoiser_of(pipe).register_forward_hook(after).remove)

    def _tick(self, tick: Tick) -> None:
        passes, self._passes = self._passes, []
        if len(passes) == 1 and len(passes[0]) == 2 * len(tick.before):
            negative, positive = passes[0].chunk(2)
        elif len(passes) == 2:
            positive, negative = passes
        else:
            return
        apart = (positive - negative).double()
        guided = (tick.output - negative).double()
        self.scales.append(float((guided * apart).sum() / apart.square().sum()))

    def finding(self) -> Finding:
        low, high = min(self.scales), max(self.scales)
        return Finding(
            "the branches are positive and negative, in that order",
            low > 1 and high - low <= GUIDANCE_TOLERANCE * high,
            f"guidance scale recovered from the outputs: {low:.4g} to {high:.4g}",
        )
