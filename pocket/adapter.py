"""Train InfuseNet and its face projection on frozen dev: `python -m pocket.adapter`.

Two losses: the flow's own, at guidance 1, heavier on the face; and the likeness of the estimated
x0 to the reference, read by critic.py, on noised pictures and on states of its own (walks.py). Neither the
judge nor schnell is ever seen.

What ships saw 2,310 steps of 1,024 (346 s on two H200), then 570 and 910 on the devs that followed (131
and 191 s on one): held-out likeness to the reference .64 after 411 steps, .80 at the end.
"""

from torch import Tensor

from stepscope.pocket import album, critic, folders, likeness
from stepscope.pocket.flow import Words, infuse, infusenet, resampler, velocity
from stepscope.pocket.muon import Muon, split
from stepscope.pocket.process import Options, autocast, compiled, options, rank
from stepscope.pocket.training import Stage
from stepscope.pocket.walks import OWN_DONE, states

SECONDS = 1100.0
BATCH = 1024
RATE, MUON = 1e-3, 3.0
DROPPED = 0.05
# The weight of unlikeness falls over the schedule: first find the face, then paint it well.
LIKENESS_FROM, LIKENESS_TO = 0.3, 0.1
# An estimate from more noise than this has no face in any one place yet.
FADE_FROM, FADE_TO = 0.86, 0.97
CHECKS = 6


def make(said: Options) -> None:
    """Train (or go on training) and write infinite-you."""
    shelf = album.load(said)
    dev, words = folders.load_dev(said.models), folders.load_text(said.models)
    eye = compiled(critic.load(said))
    dark = album.black(folders.load_vae(said.models))
    net, projection = infusenet(dev), resampler()
    if said.onward:
        for own, kept in zip(
            (net, projection), folders.load_adapter(said.models, dev), strict=True
        ):
            own.load_state_dict(kept.state_dict())
    modules = {"infusenet": net, "projection": projection}
    stage = Stage(
        "adapter", modules, said, rate=RATE, seconds=SECONDS, ema=0.998, compact=True, every=100
    )
    stage.optimiser = Muon(*split(stage.modules), RATE, ratio=MUON)

    def with_adapter(
        x: Tensor, sigma: Tensor, told: Words, guidance: Tensor, identity: Tensor
    ) -> Tensor:
        added = infuse(net, x, sigma, identity, told.pooled, dark)
        return velocity(dev, x, sigma, told, guidance, added)

    size = 4 if said.smoke else BATCH
    check = likeness.Check(said, dev, words, count=1 if said.smoke else 128)
    checked = 0
    for progress in stage:
        batch = shelf.draw(size, dropped=DROPPED)
        told = words(batch.clip_ids, batch.t5_ids)
        reference = shelf.references(batch.rows)
        with autocast():
            identity = projection(reference[:, None]).float()
        done = 1 + stage.step % OWN_DONE
        x, sigma, guidance, own = states(with_adapter, batch, told, identity, done)
        found = with_adapter(x, sigma, told, guidance, identity)
        error = ((found - (batch.noise - batch.clean)) ** 2 * shelf.face_weight(batch.rows))[own:]
        like = (eye(x - sigma[:, None, None] * found) * reference).sum(-1)
        sharp = ((FADE_TO - sigma) / (FADE_TO - FADE_FROM)).clamp(0, 1)
        unlike = (sharp * (1 - like)).mean()
        weight = LIKENESS_FROM + progress * (LIKENESS_TO - LIKENESS_FROM)
        stage.descend(
            error.mean() + weight * unlike,
            flow=error.mean(),
            like=(like[own:] * sharp[own:]).sum() / sharp[own:].sum(),
            like_own=like[:own].mean(),
        )
        if rank() == 0 and progress > (checked + 1) / CHECKS:
            checked += 1
            check(stage, net, projection, dark)
    stage.finish()
    if rank() == 0:
        folders.save_adapter(said.models, net, projection)
        check(stage, net, projection, dark)


if __name__ == "__main__":
    make(options(__doc__))
