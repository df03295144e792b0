"""Measure what ships, on people and prompts never trained on: `python -m pocket.quality`.

Writes logs/quality.json, the grids in figures/, and the table in README.md (report.py). The judge
is recogniser B, which no training has seen.
"""

import json
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import bootstrap
from torch import Tensor, nn

from stepscope.pocket import folders, networks, report, shipped
from stepscope.pocket.cells import SEED, Cells, cells, nobody, pictures
from stepscope.pocket.crowd import photographed
from stepscope.pocket.process import Options, device, options, rank
from stepscope.pocket.training import LOGS
from stepscope.pocket.verification import verify
from stepscope.pocket.world import (
    ATTRIBUTES,
    IDENTITY,
    attributes_row,
    render,
    sample_identities,
    sample_nuisance,
)

PEOPLE, PROMPTS = 64, 8
# On a CPU, where the 28 steps of a cell take some seconds.
FEWER_PEOPLE, FEWER_PROMPTS = 32, 4
FOUND = 0.5
# A face counts as broken above what this share of decoded renders reaches.
ALARMS = 0.02
# One identity number moved by half its range, to see how far the judge's cosine falls.
SENSITIVITY_PEOPLE = 200


@dataclass
class Eyes:
    """Everything that looks at a picture."""

    judge: nn.Module
    detector: networks.Detector
    attributes: nn.Module
    wholeness: nn.Module


def make(said: Options) -> None:
    """Measure everything, on process 0."""
    if rank() != 0:
        return
    eyes = Eyes(
        shipped.load_judge(said.models),
        shipped.load_detector(said.models),
        shipped.load_attributes(said.models),
        shipped.load_wholeness(said.models),
    )
    many = (PEOPLE, PROMPTS) if device().type == "cuda" else (FEWER_PEOPLE, FEWER_PROMPTS)
    people, prompts = (2, 1) if said.smoke else many
    vae, words = folders.load_vae(said.models), folders.load_text(said.models)
    conditioner = shipped.load_conditioner(said.models)
    asked = cells(eyes.judge, eyes.detector, conditioner, words, people, prompts)
    painted = pictures(said, vae, asked)
    through = painted["renders through the VAE"]
    usual = _faults(eyes, through).quantile(1 - ALARMS)
    told = {
        "cells": f"{people} people x {prompts} prompts, none trained on",
        "recognisers": {
            "conditioning encoder": _verification(conditioner, smoke=said.smoke),
            "judge": _verification(eyes.judge, smoke=said.smoke),
        },
        "detector": _keypoints(eyes.detector, smoke=said.smoke),
        "pictures": {name: _look(eyes, asked, images, usual) for name, images in painted.items()},
        "sensitivity": _sensitivity(eyes, smoke=said.smoke),
    }
    where = said.checkpoints if said.smoke else LOGS
    where.mkdir(parents=True, exist_ok=True)
    (where / "quality.json").write_text(json.dumps(told, indent=1) + "\n")
    figures = said.checkpoints if said.smoke else report.FIGURES
    report.faces_by_prompts(figures, asked.references, painted, prompts)
    for name, images in nobody(said, vae, words).items():
        report.grid(images, 10, figures / f"whole_{name}.png")
    if not said.smoke:
        (LOGS / "by_eye.json").unlink(missing_ok=True)  # counted in other grids
        report.write()


@torch.no_grad()
def _look(eyes: Eyes, asked: Cells, images: Tensor, usual: Tensor) -> dict[str, object]:
    """Found, judged, obeyed, whole, varied; intervals are bootstraps clustered by person."""
    score, points = networks.detect(eyes.detector, images)
    found = score > FOUND
    seen = networks.embed(eyes.judge, images, points)
    cosines = seen @ asked.judged.T
    own = cosines.gather(1, asked.who[:, None])[:, 0]
    others = (cosines.sum(1) - own) / (len(asked.judged) - 1)
    own[~found] = torch.nan
    answers = [a.argmax(1) for a in eyes.attributes(images)]
    obeyed = {
        name: _clustered((answers[i] == asked.attributes[:, i]).float(), asked.who)
        for i, name in enumerate(ATTRIBUTES)
    }
    broken = _faults(eyes, images) > usual
    between = seen @ seen.T
    apart = asked.who[:, None] != asked.who[None]
    return {
        "found": _clustered(found.float(), asked.who),
        "cosine": _clustered(own, asked.who),
        "floor": _clustered(others, asked.who),
        "broken": _clustered(broken.float(), asked.who),
        "pairwise": [between[apart].mean().item(), between[apart].std().item()],
        "obeyed": obeyed,
    }


@torch.no_grad()
def _faults(eyes: Eyes, images: Tensor) -> Tensor:
    """The wholeness read-out's worst cell of each picture, a logit."""
    return torch.cat([eyes.wholeness(part).flatten(1).amax(1) for part in images.split(256)])


def _clustered(values: Tensor, who: Tensor) -> list[float]:
    """[mean, low, high]: 95 % by resampling people; NaN is left out."""
    people = [np.nanmean(values[who == p].float().cpu()) for p in range(int(who.max()) + 1)]
    kept = np.array([p for p in people if np.isfinite(p)])
    if len(kept) < 2 or np.ptp(kept) == 0:
        return [float(kept.mean()) if len(kept) else float("nan")] * 3
    interval = bootstrap((kept,), np.mean, method="percentile", rng=SEED).confidence_interval
    return [float(kept.mean()), float(interval.low), float(interval.high)]


@torch.no_grad()
def _verification(recogniser: nn.Module, *, smoke: bool) -> dict[str, object]:
    people, each = (8, 2) if smoke else (400, 6)
    crowd = photographed(sample_identities(people, SEED + 2), each, SEED + 2)
    rows = torch.arange(len(crowd), device=device()).split(400)
    faces = [networks.embed(recogniser, crowd.floats(r), crowd.keypoints[r]) for r in rows]
    return vars(verify(torch.cat(faces), crowd.who))


@torch.no_grad()
def _keypoints(detector: networks.Detector, *, smoke: bool) -> dict[str, float]:
    crowd = photographed(sample_identities(8 if smoke else 2000, SEED + 3), 1, SEED + 3)
    rows = torch.arange(len(crowd), device=device()).split(400)
    score, points = map(
        torch.cat,
        zip(*[networks.detect(detector, crowd.floats(r)) for r in rows], strict=True),
    )
    error = (points - crowd.keypoints).norm(dim=-1)
    return {"found": (score > FOUND).float().mean().item(), "median": error.median().item()}


@torch.no_grad()
def _sensitivity(eyes: Eyes, *, smoke: bool) -> dict[str, float]:
    """By identity number: 1 - the judge's cosine between a photo and the same with it moved."""
    count = 1 if smoke else SENSITIVITY_PEOPLE
    people = sample_identities(count, SEED + 4, device())
    plain = attributes_row().to(device()).expand(count, -1)
    still = torch.zeros_like(sample_nuisance(count, torch.Generator(device()), device()))
    before = networks.embed(eyes.judge, *render(people, plain, still))
    falls = {}
    for i, name in enumerate(IDENTITY):
        moved = people.clone()
        moved[:, i] += torch.where(moved[:, i] < 0.5, 0.5, -0.5)
        after = networks.embed(eyes.judge, *render(moved, plain, still))
        falls[name] = 1 - (before * after).sum(-1).mean().item()
    return falls


if __name__ == "__main__":
    make(options(__doc__))
