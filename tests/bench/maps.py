"""How long the maps of transplants take on the pocket models: `python -m tests.bench.maps` (six minutes).

The coarse map of dev and the whole map of schnell as `conf/paper.yaml` has them, with their controls: two
processes of one thread share the work, as two shells with the same commands do. Recording the runs before
and measuring the images after are timed apart. Wall seconds are of the machine as it is; processor seconds
also tell where others use it.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from stepscope.probes.composing import composed
from tests.bench.marks import put

Words = list[str]
PAIR = ("baseline", "swapped")


def commands(folder: Path) -> dict[str, list[Words]]:
    """The command lines by what they do, of dev and of schnell."""
    config = composed([], "paper")
    causal, models = config["causal"]["transplant"], config["models"]
    metrics = ["edited_identity", *models["edited"]]
    made: dict[str, list[Words]] = {"record": [], "intervene": [], "measure": []}
    for i, which in enumerate(PAIR):
        run = folder / f"{models[which]}.zarr"
        made["record"].append(
            [
                *("probe", f"backbone={models[which]}", *models["overrides"]),
                f"faces=[{','.join(models['faces'][: causal['faces']])}]",
                f"prompts=[{','.join(causal['prompts'])}]",
                *(f"steps={causal['steps'][i]}", f"out={run}"),
            ]
        )
        made["intervene"].append(
            [
                *("intervene", str(run), "edit=transplant", f"every={causal['every'][i]}"),
                *(f"together={causal['together'][i]}", f"photos=[{','.join(models['photos'])}]"),
            ]
        )
        edited = run / "interventions" / "transplant"
        made["measure"].append(["measure", str(edited), f"metrics=[{','.join(metrics)}]"])
    return made


def both(first: Sequence[Words], second: Sequence[Words]) -> tuple[float, float]:
    """Wall and processor seconds of two processes that run command lines one after the other.

    Raises CalledProcessError where one fails.
    """
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    threads = {**os.environ, "OMP_NUM_THREADS": "1"}
    lines = [
        [[sys.executable, "-m", "stepscope", *words] for words in some] for some in (first, second)
    ]
    text = "import subprocess, sys; [subprocess.run(c, check=True) for c in eval(sys.argv[1])]"
    running = [
        subprocess.Popen([sys.executable, "-c", text, repr(some)], env=threads) for some in lines
    ]
    for one in running:
        if one.wait():
            raise subprocess.CalledProcessError(one.returncode, one.args)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - start, spent


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, help="also put the table between a file's marks")
    parser.add_argument("--folder", type=Path, help="of the runs; kept. Without it, none is")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        made = commands(words.folder or Path(scratch))
        rows = {
            "recording the two runs": both(made["record"][:1], made["record"][1:]),
            "the two maps": both(made["intervene"], made["intervene"][::-1]),
            "measuring their images": both(made["measure"][:1], made["measure"][1:]),
        }
    lines = ["| | minutes | processor seconds |", "|---|---|---|"]
    lines += [f"| {what} | {wall / 60:.1f} | {spent:.0f} |" for what, (wall, spent) in rows.items()]
    print("\n".join(lines))
    if words.into is not None:
        put(words.into, "maps", "\n".join(lines))


if __name__ == "__main__":
    main()
