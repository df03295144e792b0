"""What every training script shares: schedules, averages, checkpoints and logs.

stage = Stage("vae", {"vae": vae}, options, seconds=220, rate=1.2e-3, ema=0.999)
for progress in stage:                      # progress in [0, 1]
    stage.descend(loss, psnr=...)           # gradients averaged over processes, step, EMA, log
stage.finish()                              # the modules now hold their averages
"""

import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from stepscope.pocket.checkpoints import read_parts, write_parts
from stepscope.pocket.logbook import Log
from stepscope.pocket.process import SEED, Options, average_gradients, device, rank, share_weights
from stepscope.pocket.weights import cast_state

LOGS = Path(__file__).parent / "logs"

# Compiling, and whatever else only the first steps pay for, stays out of a schedule in seconds.
FREE_STEPS = 3
# The whole schedule of a run that only shows that everything fits together.
SMOKE_STEPS = 3
# Processes agree on the time this often (steps): a broadcast a step would stall the GPU.
TICK = 10


class EMA:
    """An exponential moving average of parameters, in float32, with a short start."""

    def __init__(self, parameters: list[nn.Parameter], decay: float):
        self.parameters, self.decay, self.count = parameters, decay, 0
        self.means = [p.detach().clone().float() for p in parameters]

    @torch.no_grad()
    def update(self) -> None:
        self.count += 1
        decay = min(self.decay, (1 + self.count) / (10 + self.count))
        torch._foreach_lerp_(self.means, [p.detach() for p in self.parameters], 1 - decay)

    @torch.no_grad()
    def apply(self) -> None:
        for parameter, mean in zip(self.parameters, self.means, strict=True):
            parameter.copy_(mean)


def learning_rate(progress: float, peak: float, warm: float = 0.03, floor: float = 0.02) -> float:
    """A linear warm-up over the share `warm` of the schedule, then a cosine down to the floor."""
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return peak * min(1.0, progress / warm + 0.01) * (floor + (1 - floor) * cosine)


class Stage:
    """One training run: iterate for the progress, `descend` on a loss, `finish`.

    `seconds` is the schedule's whole length, spent over as many processes as it takes: a checkpoint
    (`options.checkpoints/name.*.part`) keeps weights, averages, moments, random state and the
    seconds used, and is found again by itself. `steps` schedules by steps instead. A smoke run is
    SMOKE_STEPS without checkpoints. `compact` checkpoints hold half-precision weights and averages
    only, and Adam's moments start anew.
    """

    def __init__(
        self,
        name: str,
        modules: Mapping[str, nn.Module],
        said: Options,
        *,
        rate: float,
        seconds: float | None = None,
        steps: int | None = None,
        ema: float | None = None,
        betas: tuple[float, float] = (0.9, 0.98),
        decay: float = 0.01,
        warm: float = 0.03,
        clip: float = 1.0,
        every: int = 50,
        save_seconds: float = 120.0,
        compact: bool = False,
    ):
        self.name, self.modules, self.said = name, nn.ModuleDict(dict(modules)), said
        self.rate, self.warm, self.clip, self.every = rate, warm, clip, every
        self.seconds, self.steps = said.seconds or seconds, SMOKE_STEPS if said.smoke else steps
        self.save_seconds, self.compact = save_seconds, compact
        self.parameters = [p for p in self.modules.parameters() if p.requires_grad]
        share_weights(self.parameters)
        self.optimiser = torch.optim.AdamW(
            self.parameters, rate, betas=betas, weight_decay=decay, fused=device().type == "cuda"
        )
        self.ema = EMA(self.parameters, ema) if ema else None
        self.step, self.used, self.done = 0, 0.0, False
        resumed = not said.smoke and self._restore()
        where = said.checkpoints if said.smoke else LOGS
        file = f"{name}_onward.csv" if said.onward else f"{name}.csv"
        self.log = Log(where / file, resume=resumed)

    def __iter__(self) -> Iterator[float]:
        begun, saved, started = self.step, time.monotonic(), time.monotonic()
        before, progress = self.used, 0.0
        while True:
            here = self.step - begun
            if here == FREE_STEPS:
                self._synchronise()
                saved = started = time.monotonic()
            spent = time.monotonic() - started if here >= FREE_STEPS else 0.0
            self.used = before + spent
            if self.steps is not None:
                progress = self.step / self.steps
            elif here % TICK == 0 or here <= FREE_STEPS:
                progress = self._agree(self._share_of_time())
            if progress >= 1:
                self.done = True
                return
            if self.said.slice is not None and self._agree(spent) > self.said.slice:
                self.keep()
                return
            if not self.said.smoke and time.monotonic() - saved > self.save_seconds:
                self.keep()
                saved = time.monotonic()
            for group in self.optimiser.param_groups:
                group["lr"] = learning_rate(progress, self.rate, self.warm)
            self.step += 1
            yield progress

    def descend(self, loss: Tensor, **figures: Tensor | float) -> None:
        """One step down the loss; every so often a row of the log (the loss and the figures)."""
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        average_gradients(self.parameters)
        nn.utils.clip_grad_norm_(self.parameters, self.clip)
        self.optimiser.step()
        if self.ema:
            self.ema.update()
        if rank() == 0 and (self.step % self.every == 0 or self.step <= FREE_STEPS):
            told = {k: float(torch.as_tensor(v).detach()) for k, v in figures.items()}
            self.log.row(step=self.step, seconds=self.used, loss=float(loss.detach()), **told)

    def finish(self) -> None:
        """Keep a last checkpoint, put the averages in place of the weights, draw the curves."""
        if not self.said.smoke:
            self.keep()
        if self.ema:
            self.ema.apply()
        if rank() == 0:
            self.log.picture()
            print(f"{self.name}: {self.step} steps, {self.used:.0f} s", flush=True)

    def _share_of_time(self) -> float:
        if self.seconds is None:
            raise ValueError(f"stage {self.name!r} needs seconds or steps")
        return self.used / self.seconds

    def _agree(self, value: float) -> float:
        if not dist.is_initialized():
            return value
        shared = torch.tensor(value, dtype=torch.float64, device=device())
        dist.broadcast(shared, 0)
        return float(shared)

    def _synchronise(self) -> None:
        if device().type == "cuda":
            torch.cuda.synchronize()

    def keep(self) -> None:
        """Write the checkpoint that the next process goes on from."""
        if rank() != 0:
            return
        size = torch.float16 if self.compact else torch.float32
        state: dict[str, Any] = {
            "step": self.step,
            "used": self.used,
            "weights": cast_state(self.modules.state_dict(), size),
            "means": [m.to(size) for m in self.ema.means] if self.ema else [],
            "count": self.ema.count if self.ema else 0,
            "random": torch.get_rng_state(),
            "moments": None if self.compact else self.optimiser.state_dict(),
        }
        if device().type == "cuda":
            state["random_cuda"] = torch.cuda.get_rng_state()
        write_parts(self.said.checkpoints / self.name, state)

    def _restore(self) -> bool:
        state = read_parts(self.said.checkpoints / self.name, device())
        if state is None:
            return False
        self.modules.load_state_dict(state["weights"])
        if self.ema:
            self.ema.count = state["count"]
            for mean, kept in zip(self.ema.means, state["means"], strict=True):
                mean.copy_(kept)
        if state["moments"] is not None:
            self.optimiser.load_state_dict(state["moments"])
        self.step, self.used = state["step"], state["used"]
        if rank() == 0:
            torch.set_rng_state(state["random"].cpu())
            if "random_cuda" in state and device().type == "cuda":
                torch.cuda.set_rng_state(state["random_cuda"].cpu())
        else:
            torch.manual_seed(SEED + rank() + 1000 * self.step)
        print(f"{self.name}: resumed at step {self.step}, {self.used:.0f} s used", flush=True)
        return True
