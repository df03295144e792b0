"""Training a recogniser with an additive angular margin (ArcFace, arXiv 1801.07698)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stepscope.pocket.alignment import norm_crop
from stepscope.pocket.crowd import SEEDS, photographed, recoloured, softened, with_siblings
from stepscope.pocket.networks import EMBEDDING, embed
from stepscope.pocket.process import Options, autocast, device, on_device
from stepscope.pocket.training import Stage
from stepscope.pocket.verification import verify
from stepscope.pocket.world import sample_identities

PEOPLE, EACH, PHOTOS = 8000, 8, 0.6
BATCH = 512
SCALE, MARGIN, MARGIN_FULL_AT = 32.0, 0.40, 0.35
# Keypoints come from a detector in use: jitter of each point, and of all five together (pixels).
JITTER, DRIFT = 0.6, 0.5


def margin_loss(embeddings: Tensor, classes: Tensor, who: Tensor, margin: float) -> Tensor:
    """Cross-entropy of scaled cosines, the true class's angle widened by the margin (radians)."""
    cosines = (F.normalize(embeddings) @ F.normalize(classes).T).clamp(-1 + 1e-6, 1 - 1e-6)
    true = cosines.gather(1, who[:, None])
    widened = torch.cos(torch.acos(true) + margin)
    # Past pi - margin the cosine would rise again: go on along a line, as InsightFace does.
    line = true - math.sin(margin) * margin
    target = torch.where(true > math.cos(math.pi - margin), widened, line)
    return F.cross_entropy(cosines.scatter(1, who[:, None], target) * SCALE, who)


def train_recogniser(name: str, network: nn.Module, said: Options, seconds: float) -> nn.Module:
    """Train on people of this recogniser's own seed, siblings among them; returns it in eval."""
    people, each, batch = (4, 2, 4) if said.smoke else (PEOPLE, EACH, BATCH)
    seed = SEEDS[name]
    crowd = photographed(with_siblings(people, seed), each, seed, photo_share=PHOTOS)
    network = on_device(network)
    classes = nn.Embedding(people, EMBEDDING, device=device())
    nn.init.normal_(classes.weight, std=0.02)
    stage = Stage(
        name, {"network": network, "classes": classes}, said, seconds=seconds, rate=2.5e-3,
        decay=0.03, clip=5.0, every=100,
    )  # fmt: skip
    for progress in stage:
        rows = torch.randint(len(crowd), (batch,), device=device())
        points = crowd.keypoints[rows]
        points = points + JITTER * torch.randn_like(points)
        points = points + DRIFT * torch.randn(batch, 1, 2, device=device())
        crops = recoloured(softened(norm_crop(crowd.floats(rows), points))) * 2 - 1
        with autocast():
            embeddings = network(crops.contiguous(memory_format=torch.channels_last))
        margin = MARGIN * min(1.0, progress / MARGIN_FULL_AT)
        stage.descend(margin_loss(embeddings.float(), classes.weight, crowd.who[rows], margin))
    stage.finish()
    return network.eval()


def tell(name: str, network: nn.Module, *, smoke: bool) -> None:
    """Print the verification of people never trained on, on photos and on all styles."""
    people = sample_identities(2 if smoke else 400, SEEDS["held_out"])
    for label, share in (("photos", 1.0), ("all styles", None)):
        crowd = photographed(people, 2 if smoke else 6, SEEDS["held_out"], photo_share=share)
        rows = torch.arange(len(crowd), device=device()).split(512)
        found = torch.cat([embed(network, crowd.floats(r), crowd.keypoints[r]) for r in rows])
        print(f"{name}, {label}: {verify(found, crowd.who)}", flush=True)
