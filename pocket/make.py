"""Make everything that pocket ships, in order: `python -m pocket.make`.

Each stage goes on from its own checkpoint, so an interrupted run is simply started again; with
several GPUs the training is data parallel. `--only base,guidance` makes a part; `--continue` goes
on training what ships instead of starting anew; `--seconds base=400,adapter=300` sets lengths.
"""

import argparse
import os
import sys
import time
from dataclasses import replace
from importlib import import_module

import torch

from pocket.training import Options, options, rank

STAGES = (
    "vae",
    "recognisers",
    "detector",
    "readouts",
    "portraits",
    "base",
    "guidance",
    "critic",
    "adapter",
    "schnell",
    "quality",
    "manifest",
)


def main() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--only", default=",".join(STAGES))
    parser.add_argument("--lengths", default="")
    own, rest = parser.parse_known_args()
    spread()
    sys.argv = [sys.argv[0], *rest]
    said = options(__doc__)
    lengths = dict(pair.split("=") for pair in own.lengths.split(",") if pair)
    for name in own.only.split(","):
        if name not in STAGES:
            raise SystemExit(f"no stage {name!r}; there are {', '.join(STAGES)}")
        started = time.monotonic()
        make(name, said, float(lengths[name]) if name in lengths else None)
        if rank() == 0:
            print(f"-- {name}: {time.monotonic() - started:.0f} s in all", flush=True)


def make(name: str, said: Options, seconds: float | None) -> None:
    """One stage, in this process, on its part of the GPUs."""
    torch.manual_seed(sum(name.encode()) + 1000 * rank())
    import_module(f"pocket.{name}").make(replace(said, seconds=seconds or said.seconds))
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.distributed.is_initialized():
        torch.distributed.barrier()


def spread() -> None:
    """Start this program once per GPU, and become that."""
    count = torch.cuda.device_count()
    if count < 2 or "RANK" in os.environ:
        return
    run = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    os.execv(sys.executable, [sys.executable, *run, "-m", "pocket.make", *sys.argv[1:]])


if __name__ == "__main__":
    main()
