"""Measure every adapter on its base and, frozen, on the few-step model: logs/adapters_quality.json.

    python -m pocket.make --only adapters_quality

On people, looks and hats never trained on, each under another prompt than its reference shows. The judge's
cosine of picture and reference stands between a floor (the same noise and prompt without the adapter) and a
ceiling (another render that shares the face, look or hat). Draws figures/adapter_*.png, and fills the table
of README.md (report.py).
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from scipy.stats import bootstrap
from torch import Tensor

from stepscope.pocket import report
from stepscope.pocket.adapter_cases import Case, cases
from stepscope.pocket.process import Options, rank
from stepscope.pocket.training import LOGS

SHOWN = 8

Interval = tuple[float, float, float]


@dataclass(frozen=True)
class Setting:
    """One adapter on one model: the judge's cosine with the adapter and without, and the share of the way.

    steps: of the model. cosine, floor: means with their 95 %. of_the_way: from floor to ceiling. judged:
    the share of pictures in which the judge found something to judge; for faces, a face.
    """

    backbone: str
    steps: int
    cosine: Interval
    floor: Interval
    of_the_way: Interval
    judged: float


def make(said: Options) -> None:
    """Measure every adapter whose weights are there, on process 0."""
    if rank() != 0:
        return
    where = said.checkpoints if said.smoke else LOGS
    where.mkdir(parents=True, exist_ok=True)
    told: dict[str, Any] = {}
    for case in cases(said):
        told[case.name] = measured(case, None if said.smoke else report.FIGURES)
        print(f"{case.name}: {told[case.name]}", flush=True)
        (where / "adapters_quality.json").write_text(json.dumps(told, indent=1) + "\n")
    if not said.smoke:
        report.write()


@torch.no_grad()
def measured(case: Case, figures: Path | None) -> dict[str, Any]:
    """The ceiling and both Settings of one adapter, as JSON holds them; its figure is written."""
    ceiling = (case.wanted * case.shared).sum(1)
    found: dict[str, Any] = {
        "ceiling": resampled([ceiling], np.nanmean),
        "references": len(ceiling),
    }
    shown = [case.references[:SHOWN]]
    for few in (False, True):
        cosines = {}
        for scale in (0.0, 1.0):
            made = case.paint(scale, few)
            cosines[scale] = (case.judge(made) * case.wanted).sum(1)
            shown.append(made[:SHOWN])
        own, none = cosines[1.0], cosines[0.0]
        setting = Setting(
            case.backbones[few],
            case.steps[few],
            resampled([own], np.nanmean),
            resampled([none], np.nanmean),
            resampled([own, none, ceiling], _of_the_way),
            float((~own.isnan()).float().mean()),
        )
        found["few_step" if few else "base"] = asdict(setting)
    if figures is not None:
        grid = rearrange(torch.stack(shown), "r n c h w -> (r h) (n w) c")
        pixels = (grid.clamp(0, 1) * 255).byte().cpu().numpy()
        Image.fromarray(pixels).save(figures / f"adapter_{case.name}.png")
    return found


def _of_the_way(own: np.ndarray, none: np.ndarray, ceiling: np.ndarray) -> np.floating:
    floor = np.nanmean(none)
    return (np.nanmean(own) - floor) / (np.nanmean(ceiling) - floor)


def resampled(columns: Sequence[Tensor], statistic: Callable[..., Any]) -> Interval:
    """A statistic of paired columns and its 95 % percentile interval, by resampling references."""
    data = [column.double().cpu().numpy() for column in columns]
    found = bootstrap(
        data, statistic, paired=True, vectorized=False, n_resamples=2000, method="percentile", rng=0
    ).confidence_interval
    return tuple(round(float(v), 4) for v in (statistic(*data), found.low, found.high))  # pyright: ignore[reportReturnType]
