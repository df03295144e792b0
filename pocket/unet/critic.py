"""Train what reads looks, or faces, from a U-Net's latents: `python -m pocket.make --only look_critic`.

As pocket/critic.py does for dev: from sdxl's blurred one-step estimates of x0 to the numbers of the true
picture's look, or to the conditioning encoder's embedding of its person. The adapters' losses read it; it
knows nothing of the judges, and does not ship.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from stepscope.pocket.critic import Reader
from stepscope.pocket.flow import FACE_NUMBERS
from stepscope.pocket.process import Options, device, on_device, rank
from stepscope.pocket.training import Stage
from stepscope.pocket.unet import gallery, layout
from stepscope.pocket.unet.designs import circled
from stepscope.pocket.unet.diffusion import alphas, clean_of, noised
from stepscope.pocket.weights import load_half, save_half
from stepscope.pocket.world import looks

SECONDS = 30.0
PEOPLE = 10_000
BATCH, RATE = 384, 2e-3
BACKBONE = "sdxl"
# A share of the pictures is clean.
CLEAN = 0.2


@dataclass(frozen=True)
class Reading:
    """What a critic reads: how many numbers, what they truly are, and how far two are apart, (b,).

    Estimates come from times up to `latest`, of 1000. From `fading` on they show less and less of it, and
    count less: a palette shows earlier than a face.
    """

    numbers: int
    latest: int
    fading: int
    true: Callable[[gallery.Gallery, Tensor], Tensor]
    apart: Callable[[Tensor, Tensor], Tensor]


def _look(pictures: gallery.Gallery, rows: Tensor) -> Tensor:
    return circled(pictures.looks[rows], looks.LOOK, looks.CIRCULAR)


def _person(pictures: gallery.Gallery, rows: Tensor) -> Tensor:
    return pictures.portraits[rows // gallery.EACH]


READINGS = {
    "looks": Reading(
        len(looks.LOOK) + len(looks.CIRCULAR),
        latest=990,
        fading=950,
        true=_look,
        apart=lambda seen, true: ((seen - true) ** 2).mean(1),
    ),
    "faces": Reading(
        FACE_NUMBERS,
        latest=900,
        fading=750,
        true=_person,
        apart=lambda seen, true: 1 - functional.cosine_similarity(seen, true),
    ),
}


def make(said: Options, what: str) -> None:
    """Train the critic of "looks" or "faces" and keep it among the checkpoints."""
    reading = READINGS[what]
    pictures = gallery.load(said, BACKBONE, people=PEOPLE)
    unet, words = layout.load(said.models, layout.LAYOUTS[BACKBONE])
    critic = on_device(Reader(reading.numbers))
    name = _name(what)
    stage = Stage(
        name, {"critic": critic}, said, rate=RATE, seconds=SECONDS, ema=0.99, compact=True
    )
    size, kept = 4 if said.smoke else BATCH, alphas()
    among = pictures.having(what) if what == "looks" else None
    for _ in stage:
        rows = pictures.draw(size, among)
        clean = pictures.latents[rows].float()
        time = torch.randint(reading.latest, (size,), device=device())
        noise = torch.randn_like(clean)
        with torch.no_grad():
            x = noised(clean, noise, kept[time])
            read = words(pictures.sentence_ids(rows))
            guess = clean_of(x, layout.predicted(unet, x, time, read), kept[time])
            as_is = torch.rand(size, device=device()) < CLEAN
            seen = torch.where(as_is[:, None, None, None], clean, guess)
        stage.descend(reading.apart(critic(seen), reading.true(pictures, rows)).mean())
    stage.finish()
    if rank() == 0:
        save_half(critic, _path(said.checkpoints, what))


class Critic:
    """How far an estimate's look, or face, is from what it should be, by the trained reader."""

    def __init__(self, said: Options, what: str):
        path = _path(said.checkpoints, what)
        if not path.exists():
            raise FileNotFoundError(
                f"{path} is missing: run `python -m pocket.make --only {_name(what)}` first"
            )
        self.reading = READINGS[what]
        self.reader = load_half(Reader(self.reading.numbers), path)

    def __call__(
        self, x: Tensor, found: Tensor, time: Tensor, pictures: gallery.Gallery, rows: Tensor
    ) -> Tensor:
        """The distance of each row, (b,), less and less of it from `fading` to `latest`.

        found: the noise that was predicted at x and time (b,), (b, 16, 32, 32) as x.
        """
        guess = clean_of(x, found, alphas()[time])
        apart = self.reading.apart(self.reader(guess), self.reading.true(pictures, rows))
        latest, fading = self.reading.latest, self.reading.fading
        return apart * ((latest - time) / (latest - fading)).clamp(0, 1)


def _name(what: str) -> str:
    return {"looks": "look_critic", "faces": "face_critic"}[what]


def _path(checkpoints: Path, what: str) -> Path:
    return checkpoints / f"{_name(what)}.safetensors"
