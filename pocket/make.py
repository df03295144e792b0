"""Make everything that pocket ships, in order: `python -m pocket.make`.

Each stage goes on from its own checkpoint, so an interrupted run is simply started again; with
several GPUs the flow stages are data parallel. `--only base,guidance` makes a part;
`--continue base,adapter` starts those from the weights that ship; `--lengths base=400,adapter=300`
sets seconds.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module

import torch

from stepscope.pocket.process import options, rank

# Each in a process of its own, on one GPU.
NETWORKS = (
    "vae",
    "recogniser_a",
    "recogniser_b",
    "detector",
    "attributes",
    "wholeness",
    "export",
    "portraits",
    "pictures",
)
# Together in one process per GPU, so that the album is painted once.
FLOWS = ("base", "guidance", "critic", "adapter", "schnell", "quality")
# Likewise, on galleries of looks and hats: a stage is a module's `make`, with a name.
UNETS = {
    "image_encoder": ("image_encoder",),
    "judges": ("judges",),
    "sd15": ("base", "sd15"),
    "sdxl": ("base", "sdxl"),
    "sd15_lcm": ("few_steps", "sd15"),
    "sdxl_lcm": ("few_steps", "sdxl"),
    "look_critic": ("critic", "looks"),
    "face_critic": ("critic", "faces"),
    "style": ("image_prompt", "style"),
    "object": ("image_prompt", "object"),
    "face_id": ("image_prompt", "face_id"),
    "instantid": ("instantid",),
}
# Adapters that learn on dev as it ships.
ON_DEV = {
    "face_prompt": ("image_prompt",),
    "person": ("person",),
    "eva": ("eva",),
    "pulid": ("pulid",),
}
# Looks at all of them.
LAST = ("adapters_quality",)
FOLDERS = {**dict.fromkeys(UNETS, "pocket.unet"), **dict.fromkeys(ON_DEV, "pocket.on_dev")}
# Those that may start from the weights that ship.
ONWARD = (
    *("base", "guidance", "adapter", "schnell", "sd15", "sdxl"),
    *("style", "object", "face_id", "face_prompt", "pulid"),
)
# The last stage looks at all files.
STAGES = (*NETWORKS, *FLOWS, *FOLDERS, *LAST, "manifest")


def main() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--only", default=",".join(STAGES))
    parser.add_argument("--lengths", default="")
    parser.add_argument("--continue", dest="onward", default="")
    own, rest = parser.parse_known_args()
    chosen, onward = own.only.split(","), [n for n in own.onward.split(",") if n]
    for name in onward:
        if name not in ONWARD:
            raise SystemExit(f"{name!r} cannot be continued; {', '.join(ONWARD)} can")
    for name in chosen:
        if name not in STAGES:
            raise SystemExit(f"no stage {name!r}; there are {', '.join(STAGES)}")
    if "RANK" in os.environ or not set(chosen) - {*FLOWS, *FOLDERS, *LAST}:
        spread()
        sys.argv = [sys.argv[0], *rest]
        flows(chosen, dict(pair.split("=") for pair in own.lengths.split(",") if pair), onward)
        return
    with timed("everything"):
        for name in [n for n in NETWORKS if n in chosen]:
            with timed(name):
                run("pocket." + name, *rest)
        flow = [n for n in (*FLOWS, *FOLDERS, *LAST) if n in chosen]
        if flow:
            said = ["--only", ",".join(flow), "--lengths", own.lengths, "--continue", own.onward]
            run("pocket.make", *said, *rest)
        if "manifest" in chosen:
            run("pocket.manifest")


@contextmanager
def timed(name: str) -> Iterator[None]:
    """Tell on process 0 how long it took."""
    begun = time.monotonic()
    yield
    if rank() == 0:
        print(f"-- {name}: {time.monotonic() - begun:.0f} s in all", flush=True)


def run(module: str, *arguments: str) -> None:
    """A stage in a process of its own; its failure is ours."""
    subprocess.run([sys.executable, "-m", module, *arguments], check=True)


def flows(chosen: list[str], lengths: dict[str, str], onward: list[str]) -> None:
    """The flow stages in this process, on its part of the GPUs."""
    said = options(__doc__)
    for name in chosen:
        torch.manual_seed(sum(name.encode()) + 1000 * rank())
        seconds = float(lengths[name]) if name in lengths else said.seconds
        with timed(name):
            module, *which = (UNETS | ON_DEV).get(name, (name,))
            stage = import_module(f"stepscope.{FOLDERS.get(name, 'pocket')}.{module}")
            stage.make(replace(said, seconds=seconds, onward=name in onward), *which)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            if torch.distributed.is_initialized():
                torch.distributed.barrier()


def spread() -> None:
    """With several GPUs, start this program once per GPU, and become that."""
    count = torch.cuda.device_count()
    if count < 2 or "RANK" in os.environ:
        return
    start = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    os.execv(sys.executable, [sys.executable, *start, "-m", "pocket.make", *sys.argv[1:]])


if __name__ == "__main__":
    main()
