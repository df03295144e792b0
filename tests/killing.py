"""A process that loads a run's models once and makes the run in forks of itself, to be killed.

`python -m tests.killing FACE`; a line `SECONDS PATH` on standard input makes the run at PATH and kills
it after so many seconds (never, if negative); the answer is `killed` or `ended`. `SECONDS,SECONDS PATH`
makes one run in two processes at once, each killed after its own; the answer is a word for each. What
they said is in `PATH.0.txt` and `PATH.1.txt`. It must not use Zarr or compute anything itself: threads
of theirs would be missing in the forks.
"""

import math
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import stepscope.probes.quiet  # noqa: F401  isort: skip

import torch

from stepscope.probes import grid, models, plan
from stepscope.probes.faces import face_files
from stepscope.probes.run import run
from stepscope.probes.study import Study, prompts_of
from tests.shell import infused, listed, study_of


def words(face: Path, out: Path) -> list[str]:
    """Eight samples, in batches of two."""
    prompts = listed("a man portrait cinematic", "a woman in a suit")
    return infused(faces=listed(face), prompts=prompts, seeds="[0,1,2,3]", batch_size=2, out=out)


def started(number: int, study: Study) -> int:
    """Make the run in a fork; its process's number."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            with Path(f"{study.out}.{number}.txt").open("w") as said:
                run(study, say=lambda text: print(text, file=said, flush=True))
            status = 0
        finally:
            os._exit(status)
    return pid


def killed(pid: int, end: float) -> bool:
    """Wait for a process, and kill it at that time; True if it was killed, False if it had ended well."""
    ended, status = os.waitpid(pid, os.WNOHANG)
    while not ended and time.monotonic() < end:
        time.sleep(0.0005)
        ended, status = os.waitpid(pid, os.WNOHANG)
    if not ended:
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return True
    if status:
        raise SystemExit("a run that was not killed failed")
    return False


def main() -> None:
    torch.set_num_threads(1)
    study = study_of(words(Path(sys.argv[1]), Path("run.zarr")))
    files = face_files(study.faces)
    cells = grid.cells(list(files), prompts_of(study), study.seeds)
    found = plan.outline(study)
    loaded = models.load(study, files, plan.latent_shape(found), len(cells))
    # What is done before anything is written, once: more of the kills fall where it matters.
    plan.outline = lambda study: found
    models.load = lambda *args: loaded
    for line in sys.stdin:
        times, path = line.rstrip("\n").split(" ", 1)
        seconds = [float(each) if float(each) >= 0 else math.inf for each in times.split(",")]
        begin = time.monotonic()
        pids = [started(i, replace(study, out=path)) for i in range(len(seconds))]
        ends = sorted(zip(seconds, pids, strict=True))  # the first that is to be killed first
        how = {pid: "killed" if killed(pid, begin + s) else "ended" for s, pid in ends}
        print(*(how[pid] for pid in pids), flush=True)


if __name__ == "__main__":
    main()
