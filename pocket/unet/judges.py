"""Train the judges of looks and of hats: `python -m pocket.make --only judges`.

Each learns from pairs (InfoNCE, van den Oord et al. 2018): two pictures that share a look, or a hat, and
nothing else that was chosen. Convolutions, other pictures, another task than the image encoder's: what
conditions is not what judges. They ship as ONNX, one output `embedding` (n, 64) of unit norm.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from stepscope.pocket import export
from stepscope.pocket.crowd import softened
from stepscope.pocket.networks import conv
from stepscope.pocket.process import Options, autocast, on_device, rank
from stepscope.pocket.training import Stage
from stepscope.pocket.unet import gallery
from stepscope.pocket.verification import verify
from stepscope.pocket.world import SIZE

SECONDS = 60.0
PEOPLE = 10_000
BATCH, RATE, TEMPERATURE = 512, 2e-3, 0.07
EMBEDDING = 64
JUDGED = ("looks", "hats")


class Judge(nn.Module):
    """A picture's look, or hat: (n, 3, 128, 128) in [0, 1] to (n, 64) of unit norm."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            conv(3, 24, 2), conv(24, 32), conv(32, 48, 2), conv(48, 64), conv(64, 80, 2),
            conv(80, 80), conv(80, 96, 2), nn.Conv2d(96, 32, 1), nn.Flatten(),
        )  # fmt: skip
        self.head = nn.Linear(32 * 64, EMBEDDING)

    def forward(self, images: Tensor) -> Tensor:
        return functional.normalize(self.head(self.body(images * 2 - 1)), dim=-1)


def file(models: Path, what: str) -> Path:
    """Where a judge ships: what is "looks" or "hats"."""
    return models / "readout" / f"{what}.onnx"


def make(said: Options) -> None:
    """Train both on a gallery of other people and designs, tell how well they verify, and export."""
    pictures = gallery.load(said, "all", apart=50, people=PEOPLE)
    strangers = gallery.paint(said.models, "all", 6 if said.smoke else 500, gallery.HELD_OUT)
    for what in JUDGED:
        judge = on_device(Judge())
        stage = Stage(
            f"judge_{what}", {"judge": judge}, said, rate=RATE, seconds=SECONDS, every=100
        )
        having = pictures.having(what)
        size = 2 if said.smoke else BATCH
        for _ in stage:
            rows = pictures.draw(size, having)
            pair = torch.cat([rows, pictures.sharing(rows, what)])
            with autocast():
                found = judge(softened(pictures.floats(pair))).float()
            cosines = found[:size] @ found[size:].T / TEMPERATURE
            right = torch.arange(size, device=found.device)
            both = functional.cross_entropy(cosines, right)
            stage.descend((both + functional.cross_entropy(cosines.T, right)) / 2)
        stage.finish()
        if rank() == 0:
            judge.eval()
            seen, which = judged(judge, strangers, what)
            print(f"judge of {what}, never trained on: {verify(seen, which)}", flush=True)
            axes = {"data": {0: "n"}, "embedding": {0: "n"}}
            shape = (1, 3, SIZE, SIZE)
            export.write(judge.float(), shape, file(said.models, what), ["embedding"], axes)


@torch.no_grad()
def judged(judge: nn.Module, pictures: gallery.Gallery, what: str) -> tuple[Tensor, Tensor]:
    """Embeddings of the pictures that have a look or hat, and which one each has."""
    rows = pictures.having(what)
    seen = torch.cat([judge(pictures.floats(part)) for part in rows.split(256)])
    _, which = getattr(pictures, what)[rows].unique(dim=0, return_inverse=True)
    return seen, which
