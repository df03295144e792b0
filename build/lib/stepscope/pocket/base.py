"""Train the base rectified flow jointly with its text encoders: `python -m pocket.base`.

Nothing of it ships but the text encoders: guidance.py turns it into dev. What ships saw 5,150 steps of
1,024 without weights on the face (356 s on two H200), then 3,451 with them (330 s on one): flow .178 ->
.165. Then 7,728 more on an album of other people (740 s): .169 -> .154. The new people's first loss,
.169, shows that the earlier ones were hardly learnt by heart.
"""

from torch import nn

from stepscope.pocket import album, folders, text
from stepscope.pocket.flow import copy_weights, noised, transformer, velocity
from stepscope.pocket.muon import Muon, split
from stepscope.pocket.process import Options, options, rank
from stepscope.pocket.sampling import draw_sigmas
from stepscope.pocket.training import Stage

SECONDS = 1800.0
# Launching a step's kernels takes Python some 60 ms, whatever the batch: it has to be large.
BATCH = 1024
# On a small copy of this model 300 steps reached a loss of .185 with Muon at four times AdamW's rate,
# .194 at twice, and .197 with AdamW alone at its better rate.
RATE, MUON, DECAY = 1.5e-3, 4.0, 0.05
# Where faces come together or do not (sigma .5 to .95) is where most of the noise levels lie.
SIGMA_MEAN = 0.6
DROPPED = 0.1
# What is continued has weights to lose: it starts gentler.
ONWARD = 0.6


def make(said: Options) -> None:
    """Train (or go on training) and keep `base` among the checkpoints."""
    shelf = album.load(said)
    model, words = transformer(guidance=False), text.new()
    if said.onward:
        copy_weights(folders.fixed_guidance(folders.load_dev(said.models), 1.0), model)
        copy_weights(folders.load_text(said.models), words)
    else:
        silence(model)
    modules = {"transformer": model, "text": words}
    rate = RATE * ONWARD if said.onward else RATE
    stage = Stage(
        "base", modules, said, rate=rate, seconds=SECONDS, ema=0.998, compact=True, every=100
    )
    stage.optimiser = Muon(*split(stage.modules), rate, ratio=MUON, decay=DECAY)
    size = 4 if said.smoke else BATCH
    for _ in stage:
        batch = shelf.draw(size, dropped=DROPPED)
        sigma = draw_sigmas(size, SIGMA_MEAN)
        x = noised(batch.clean, batch.noise, sigma)
        found = velocity(model, x, sigma, words(batch.clip_ids, batch.t5_ids))
        error = (found - (batch.noise - batch.clean)) ** 2
        # Faces are a fifth of a picture, and break first. A weight moves no minimum, only the effort.
        stage.descend((error * shelf.face_weight(batch.rows)).mean(), flow=error.mean())
    stage.finish()
    if rank() == 0:
        folders.save_base(said.checkpoints, model, words)


def silence(model: nn.Module) -> None:
    """Zero all modulations and the output, so that every block starts as the identity (DiT)."""
    for name, layer in model.named_modules():
        modulation = name.endswith(("norm1.linear", "norm1_context.linear", "norm.linear"))
        if isinstance(layer, nn.Linear) and (modulation or name == "proj_out"):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)


if __name__ == "__main__":
    make(options(__doc__))
