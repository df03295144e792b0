"""Peak memory of recording, against steps and against samples, each measured in a fresh process."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from stepscope.hooks import record
from tests.bench.narrow import call, pipeline

CASES = ((4, 1), (8, 1), (16, 1), (32, 1), (4, 4), (4, 16))
"""(steps, samples)."""


def peak(steps: int, samples: int, *, recording: bool) -> float:
    """MB that the process grew by in these runs, after one short run has warmed it up."""
    pipe = pipeline()
    with tempfile.TemporaryDirectory() as folder:
        with record(pipe, Path(folder) / "warm.zarr"):
            call(pipe, 2)
        before = high_water(fresh=True)
        if recording:
            with record(pipe, Path(folder) / "run.zarr"):
                for _ in range(samples):
                    call(pipe, steps)
        else:
            for _ in range(samples):
                call(pipe, steps)
    return high_water() - before


def high_water(*, fresh: bool = False) -> float:
    """MB of memory at the highest since the process began, or since the last `fresh` (Linux).

    Not `ru_maxrss`: a child inherits its parent's, which hides whatever stays below it.
    """
    if fresh:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def table() -> str:
    """Markdown: growth of peak memory without and with recording, and what one sample's record is."""
    lines = [
        "| steps | samples | peak grows without, MB | with recording, MB |",
        "|---|---|---|---|",
    ]
    for steps, samples in CASES:
        grown = [_in_child(steps, samples, recording=on) for on in (False, True)]
        lines.append(f"| {steps} | {samples} | {grown[0]:.1f} | {grown[1]:.1f} |")
    return "\n".join(lines)


def _in_child(steps: int, samples: int, *, recording: bool) -> float:
    code = (
        "import torch; torch.set_num_threads(1)\n"
        "from tests.bench.memory import peak\n"
        f"import json; print(json.dumps(peak({steps}, {samples}, recording={recording})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])
