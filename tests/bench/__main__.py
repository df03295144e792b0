"""`python -m tests.bench`: what recording costs in time, memory and bytes, as Markdown."""

import argparse
import os
from pathlib import Path

import torch

from tests.bench import memory, recording, storing
from tests.bench.marks import put


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=28, help="28: a run of FLUX.1-dev")
    parser.add_argument("--into", type=Path, help="also put the tables between a file's marks")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    tables = {
        "recording": lambda: recording.table(args.rounds, args.steps),
        "storing": lambda: (
            f"{storing.table(rounds=3)}\n\n{storing.opening(args.rounds, samples=8)}"
        ),
        "memory": memory.table,  # on Linux alone
    }
    for name, made in tables.items():
        table = made()
        print(f"\n### {name}\n\n{table}")
        if args.into is not None:
            put(args.into, name, table)


if __name__ == "__main__":
    main()
