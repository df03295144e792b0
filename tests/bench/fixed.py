"""What recording adds to a call whatever its steps: `python -m tests.bench.fixed` (a minute).

Processor time of the thread that calls the pocket model of dev, in milliseconds: whole calls with and
without recording, and what is done before the first step (refusals, fingerprints of all weights,
adapters, attributes). The run is written on a thread of its own, which is not counted.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from diffusers import FluxPipeline

from stepscope.hooks import record
from stepscope.hooks.recording import Recording

DEV = "pocket/models/flux-dev"


def milliseconds(work: Callable[[], object]) -> float:
    """Of processor time of this thread."""
    start = time.thread_time()
    work()
    return 1000 * (time.thread_time() - start)


def table(rounds: int, steps: int) -> str:
    """Markdown. Both take turns, so that a drift of the machine meets both."""
    pipe: Any = FluxPipeline.from_pretrained(DEV)
    pipe.set_progress_bar_config(disable=True)
    spent: dict[str, list[float]] = {"a call": [], "a recorded call": [], "of it before a step": []}
    begin = Recording._begin

    def timed(*args: Any) -> None:
        spent["of it before a step"].append(milliseconds(lambda: begin(*args)))

    def call() -> None:
        pipe("portrait photo of a person", num_inference_steps=steps, height=128, width=128)

    with tempfile.TemporaryDirectory() as folder, patch.object(Recording, "_begin", timed):
        for turn in range(rounds + 1):
            bare = milliseconds(call)
            with record(pipe, Path(folder) / "run.zarr"):
                recorded = milliseconds(call)
            if turn:  # the first warms up
                spent["a call"].append(bare)
                spent["a recorded call"].append(recorded)
    lines = [f"{steps} steps, one sample, {rounds} rounds, one thread.", ""]
    lines += ["| | ms, median | least to most |", "|---|---|---|"]
    for name, values in spent.items():
        about = f"{min(values):.1f} to {max(values):.1f}"
        lines.append(f"| {name} | {statistics.median(values):.1f} | {about} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=4)
    words = parser.parse_args()
    torch.set_num_threads(1)
    print(table(words.rounds, words.steps))


if __name__ == "__main__":
    main()
