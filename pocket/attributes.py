"""The attribute read-out, readout/attributes.onnx: which prompt does a picture obey?

    python -m pocket.attributes [--smoke]

Expect 5,730 steps of 256 in 60 s on an H200, loss 10 -> 6e-6. On 2,000 people never trained on it
reads every attribute of every picture but the expression of one.
"""

import torch
import torch.nn.functional as F

from stepscope.pocket.crowd import SEEDS, photographed, softened
from stepscope.pocket.export import export_attributes
from stepscope.pocket.networks import AttributeReadout
from stepscope.pocket.process import autocast, device, on_device, options
from stepscope.pocket.training import Stage
from stepscope.pocket.world import ATTRIBUTES, sample_identities

SECONDS = 60
PEOPLE, BATCH = 30000, 256
RATE = 1.5e-3


def main() -> None:
    said = options(__doc__)
    people, batch = (4, 4) if said.smoke else (PEOPLE, BATCH)
    seed = SEEDS["attributes"]
    crowd = photographed(sample_identities(people, seed), 1, seed)
    readout = on_device(AttributeReadout())
    stage = Stage(
        "attributes",
        {"readout": readout},
        said,
        seconds=SECONDS,
        rate=RATE,
        decay=0.05,
        clip=5.0,
        every=100,
    )
    for _ in stage:
        rows = torch.randint(len(crowd), (batch,), device=device())
        images = softened(crowd.floats(rows)).contiguous(memory_format=torch.channels_last)
        with autocast():
            logits = readout(images)
        losses = [
            F.cross_entropy(a.float(), crowd.attributes[rows, i]) for i, a in enumerate(logits)
        ]
        stage.descend(torch.stack(losses).sum())
    stage.finish()
    readout.eval()
    export_attributes(readout, said.models)
    test = photographed(sample_identities(2 if said.smoke else 2000, SEEDS["held_out"]), 1, 8)
    with torch.no_grad():
        answers = [
            readout(test.floats(r)) for r in torch.arange(len(test), device=device()).split(500)
        ]
    for i, name in enumerate(ATTRIBUTES):
        right = torch.cat([a[i] for a in answers]).argmax(1) == test.attributes[:, i]
        print(f"{name}: {right.float().mean():.4f}", flush=True)


if __name__ == "__main__":
    main()
