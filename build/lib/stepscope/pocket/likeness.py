"""The adapter's held-out curve: how alike its pictures are to strangers' references.

Judged by the conditioning encoder alone; the judge stays unseen until quality.py.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers import FluxControlNetModel, FluxTransformer2DModel
from torch import Tensor, nn

from stepscope.pocket import album, folders, networks, shipped
from stepscope.pocket.flow import Words, noise
from stepscope.pocket.process import Options, autocast
from stepscope.pocket.sampling import DEV_SCHEDULER, USER_GUIDANCE, Adapter, sample, sigmas
from stepscope.pocket.training import Stage

STEPS, SEED = 10, 8100
FOUND = 0.5


class Check:
    """`count` people never trained on, one prompt each, the same noise every time."""

    def __init__(self, said: Options, dev: FluxTransformer2DModel, words: nn.Module, count: int):
        people = album.paint(said.models, count, SEED)
        first = slice(None, None, album.RENDERS)
        with torch.no_grad():
            self.told: Words = words(people.clip_ids[first, 1], people.t5_ids[first, 1])
        self.dev, self.references = dev, people.portraits
        self.vae = folders.load_vae(said.models)
        self.encoder = shipped.load_conditioner(said.models)
        self.detector = shipped.load_detector(said.models)
        self.noise = noise(count, SEED)
        self.levels = sigmas(DEV_SCHEDULER, 2 if said.smoke else STEPS)

    @torch.no_grad()
    def __call__(
        self, stage: Stage, net: FluxControlNetModel, projection: nn.Module, dark: Tensor
    ) -> float:
        """Mean cosine over faces found, by the stage's averaged weights; printed."""
        with averaged(stage):
            with autocast():
                identity = projection(self.references[:, None]).float()
            adapter = Adapter(net, identity, dark)
            x = sample(self.dev, self.noise, self.told, self.levels, USER_GUIDANCE, adapter)
        images = album.decode(self.vae, x)
        score, points = networks.detect(self.detector, images)
        cosine = (networks.embed(self.encoder, images, points) * self.references).sum(-1)
        mean = cosine[score > FOUND].mean().item()
        found = (score > FOUND).float().mean().item()
        print(f"held out: likeness {mean:.4f}, found {found:.3f}, step {stage.step}", flush=True)
        return mean


@contextmanager
def averaged(stage: Stage) -> Iterator[None]:
    """The stage's moving averages in place of its weights, for as long as the `with`."""
    assert stage.ema is not None
    kept = [p.detach().clone() for p in stage.parameters]
    stage.ema.apply()
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, weight in zip(stage.parameters, kept, strict=True):
                parameter.copy_(weight)
