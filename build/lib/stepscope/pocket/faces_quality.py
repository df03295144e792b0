"""Measures everything up to the autoencoder on people never trained on: logs/faces_quality.json.

    python -m pocket.faces_quality [--people 400]          # five minutes on two cores

Detector (share found, keypoint error in pixels), both recognisers (equal-error rate with the
counts of pairs, ceiling, floor), the judge's loss of cosine for each identity number moved by half
its range, the attribute read-out, and the autoencoder (PSNR, the cosine through it).
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stepscope.pocket.crowd import SEEDS, Crowd, photographed
from stepscope.pocket.networks import AttributeReadout, Detector, detect, embed
from stepscope.pocket.process import MODELS, device, prepare
from stepscope.pocket.shipped import load_attributes, load_conditioner, load_detector, load_judge
from stepscope.pocket.training import LOGS
from stepscope.pocket.vae import decibels, load_vae
from stepscope.pocket.verification import verify
from stepscope.pocket.world import (
    ATTRIBUTES,
    IDENTITY,
    NUISANCE,
    attributes_row,
    render,
    sample_identities,
)

EACH = 6
BATCH = 100
# A number moved by half its range goes half way round, so that every start has an end.
MOVE = 0.5


def batches(n: int) -> tuple[Tensor, ...]:
    return torch.arange(n, device=device()).split(BATCH)


def detection(crowd: Crowd, detector: Detector) -> tuple[dict[str, Any], Tensor]:
    """The share found at score 0.5, and the keypoints' error; and the keypoints, (n, 5, 2)."""
    answers = [detect(detector, crowd.floats(rows)) for rows in batches(len(crowd))]
    scores, points = (torch.cat(a) for a in zip(*answers, strict=True))
    error = (points - crowd.keypoints).norm(dim=-1).flatten()
    figures = {
        "renders": len(crowd),
        "found": int((scores > 0.5).sum()),
        "keypoint_median_px": float(error.median()),
        "keypoint_95_px": float(error.quantile(0.95)),
    }
    return figures, points


def recognition(crowd: Crowd, points: Tensor, net: nn.Module) -> dict[str, Any]:
    """Verification of photos alone and of all styles, at the detector's keypoints."""
    rows = batches(len(crowd))
    found = torch.cat([embed(net, crowd.floats(r), points[r]) for r in rows])
    photo = crowd.attributes[:, list(ATTRIBUTES).index("style")] == 0
    return {
        "photos": asdict(verify(found[photo], crowd.who[photo])),
        "all_styles": asdict(verify(found, crowd.who)),
    }


def sensitivity(people: Tensor, detector: Detector, judge: nn.Module) -> dict[str, float]:
    """How far the judge's cosine to the same frontal photo falls, per identity number moved."""
    n = len(people)
    plain = attributes_row(shot="portrait", clothing="t-shirt")[None].expand(n, -1).to(device())
    still = torch.zeros(n, len(NUISANCE), device=device())

    def seen(who: Tensor) -> Tensor:
        images, _ = render(who, plain, still)
        return embed(judge, images, detect(detector, images)[1])

    before, falls = seen(people), {}
    for i, name in enumerate(IDENTITY):
        moved = people.clone()
        moved[:, i] = (moved[:, i] + MOVE) % 1
        falls[name] = float(1 - (seen(moved) * before).sum(1).mean())
    return falls


@torch.no_grad()
def autoencoding(crowd: Crowd, detector: Detector, nets: dict[str, nn.Module]) -> dict[str, Any]:
    """PSNR, and each recogniser's cosine between a picture and its reconstruction."""
    vae = load_vae(MODELS / "flux-dev" / "vae")
    quality, cosines = [], {name: [] for name in nets}
    for rows in batches(len(crowd)):
        images = crowd.floats(rows)
        latents = vae.encoder(images * 2 - 1).chunk(2, 1)[0]
        decoded = vae.decoder(latents).clamp(-1, 1)
        quality.append(decibels(images * 2 - 1, decoded))
        again = (decoded + 1) / 2
        where, found = detect(detector, images)[1], detect(detector, again)[1]
        for name, net in nets.items():
            cosines[name].append((embed(net, images, where) * embed(net, again, found)).sum(1))
    db = torch.cat(quality)
    photo = crowd.attributes[:, list(ATTRIBUTES).index("style")] == 0
    return {
        "pictures": len(db),
        "psnr_db": float(db.mean()),
        "psnr_photos_db": float(db[photo].mean()),
        "psnr_worst_db": float(db.min()),
        "cosine": {name: float(torch.cat(c).mean()) for name, c in cosines.items()},
    }


@torch.no_grad()
def obedience(crowd: Crowd, readout: AttributeReadout) -> dict[str, float]:
    """The share of renders whose attribute is recovered, per attribute."""
    answers = [readout(crowd.floats(rows)) for rows in batches(len(crowd))]
    chosen = torch.stack(
        [torch.cat([a[i] for a in answers]).argmax(1) for i in range(len(ATTRIBUTES))], 1
    )
    right = (chosen == crowd.attributes).float().mean(0)
    return dict(zip(ATTRIBUTES, right.tolist(), strict=True))


def measure(n: int) -> dict[str, Any]:
    """All figures, over n people of the held-out seed."""
    people = sample_identities(n, SEEDS["held_out"], device())
    detector = load_detector()
    nets: dict[str, nn.Module] = {"conditioner": load_conditioner(), "judge": load_judge()}
    crowd = photographed(people, EACH, SEEDS["held_out"])
    found, points = detection(crowd, detector)
    few = slice(0, min(len(crowd), 300))
    part = Crowd(*(t[few] for t in (crowd.images, crowd.keypoints, crowd.attributes, crowd.who)))
    return {
        "detector": found,
        "recognisers": {name: recognition(crowd, points, net) for name, net in nets.items()},
        "sensitivity": sensitivity(people[: max(8, n // 4)], detector, nets["judge"]),
        "attributes": obedience(crowd, load_attributes()),
        "autoencoder": autoencoding(part, detector, nets),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--people", type=int, default=400)
    parser.add_argument("--out", type=Path, default=LOGS / "faces_quality.json")
    said = parser.parse_args()
    prepare()
    figures = measure(said.people)
    said.out.parent.mkdir(parents=True, exist_ok=True)
    said.out.write_text(json.dumps(figures, indent=1) + "\n")
    print(said.out.read_text())
