"""The explorer at work, and a run of many samples for it: FLUX's size on paper, few bytes on disk."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import xarray as xr
from torch import nn

from stepscope.analysis.explore.serve import start
from stepscope.analysis.explore.source import Source
from stepscope.hooks.capture import Capture
from stepscope.hooks.layout import Layout, layout
from stepscope.hooks.sites import Block
from stepscope.hooks.store import Run


def flux() -> Layout:
    """57 blocks, 28 steps, 1024 x 1024."""
    kinds = [("double", i) for i in range(19)] + [("single", i) for i in range(38)]
    blocks = [Block(f"{kind}.{i:02d}", kind, i, nn.Identity(), ()) for kind, i in kinds]
    return layout(
        blocks, [], Capture(), streams=("image", "text"), steps=28, branches=("positive",),
        latent=(16, 128, 128), image=(1024, 1024), grid=(64, 64), full={},
    )  # fmt: skip


def many(path: Path, samples: int, *, damaged: bool = False) -> Path:
    """A run whose samples are marked done, all but the last.

    The first sample has norms. damaged: its file of every recorded variable is no chunk; else it has none
    of the others.
    """
    plan = flux()
    labels = [
        {"face": f"face_{i % 97:02d}", "prompt": f"portrait number {i % 53}", "seed": i}
        for i in range(samples)
    ]
    run = Run.create(path, plan, labels, {"pipeline": "FluxPipeline", "backbone": "flux_dev"})
    names = ("sigma", "timestep")
    run.write_steps({name: np.linspace(1, 0.04, 28, dtype=np.float32) for name in names})
    declared, shape = plan.variables["attention_norm"]
    values = np.random.default_rng(0).uniform(1, 100, (1, *shape)).astype(np.float32)
    first = xr.Dataset({"done": ("sample", [True]), "attention_norm": (declared.dims, values)})
    first.to_zarr(path, region={"sample": slice(0, 1)}, consolidated=False)
    for i in range(1, samples - 1):
        os.link(path / "done" / "c" / "0", path / "done" / "c" / str(i))
    for name, (declared, shape) in plan.variables.items() if damaged else ():
        if declared.dims[0] == "sample" and name != "done":
            file = (path / name / "c").joinpath("0", *("0" for _ in shape))
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"not a chunk")
    return path


@contextmanager
def served(*runs: Path) -> Iterator[str]:
    """The address at which a server of this process shows the runs."""
    explorer = start([Source(str(run)) for run in runs], 0)
    thread = threading.Thread(target=explorer.serve_forever)
    thread.start()
    try:
        yield explorer.address
    finally:
        explorer.shutdown()
        thread.join()
        explorer.server_close()
