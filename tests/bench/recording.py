"""Time with recording over time without, beside other ways to get the same norms."""

import gc
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.bench.contenders import CONTENDERS, gathered
from tests.bench.narrow import DOUBLE, HEAD_DIM, HEADS, SIDE, SINGLE, TEXT_TOKENS, call, pipeline


def table(rounds: int, steps: int) -> str:
    """Markdown. Contenders take turns and change places in the order, so that a drift of the machine,
    and what one leaves behind for the next, meet all of them alike."""
    pipe, names = pipeline(), list(CONTENDERS)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    absent: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(rounds + 1):
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                if name in absent:
                    continue
                try:
                    spent = timed(name, pipe, Path(folder), steps)
                except ModuleNotFoundError as error:
                    absent[name] = f"not installed ({error.name})"
                    continue
                if turn:  # the first warms up, and makes the run that the others add to
                    seconds[name].append(spent)
    lines = [
        f"{DOUBLE} + {SINGLE} blocks of {HEADS} x {HEAD_DIM} channels, {(SIDE // 16) ** 2} image and "
        f"{TEXT_TOKENS} text tokens, {steps} steps, {rounds} rounds, one thread.",
        "",
        "| | ms a step, median | least to most | over nothing, median of rounds | of the fastest |",
        "|---|---|---|---|---|",
    ]
    for name, values in seconds.items():
        if name in absent:
            lines.append(f"| {name} | {absent[name]} | | | |")
            continue
        ms = [1000 * v / steps for v in values]
        ratios = [v / w - 1 for v, w in zip(values, seconds["nothing"], strict=True)]
        fastest = min(values) / min(seconds["nothing"]) - 1
        lines.append(
            f"| {name} | {statistics.median(ms):.1f} | {min(ms):.1f} to {max(ms):.1f} | "
            f"{statistics.median(ratios):+.1%} | {fastest:+.1%} |"
        )
    return "\n".join(lines)


def timed(name: str, pipe: Any, folder: Path, steps: int) -> float:
    """Seconds of a call, from laying hooks to norms in an array or on disk.

    Raises RuntimeError if a contender missed some of the norms.
    """
    gc.collect()
    start = time.perf_counter()
    with CONTENDERS[name](pipe, folder) as norms:
        call(pipe, steps)
    count = len(gathered(norms))
    spent = time.perf_counter() - start  # leaving waits for what is still to be written
    expected = 4 * (DOUBLE + SINGLE) * steps
    if norms and count != expected:
        raise RuntimeError(f"{name} made {count} norms, not {expected}")
    return spent
