"""Time with recording over time without, beside other ways to get the same norms."""

import statistics
import tempfile
import time
from itertools import product
from pathlib import Path

from tests.bench.contenders import CONTENDERS
from tests.bench.narrow import DOUBLE, HEAD_DIM, HEADS, SIDE, SINGLE, TEXT_TOKENS, call, pipeline


def table(rounds: int, steps: int) -> str:
    """Markdown. Contenders take turns, so that a drift of the machine meets all of them alike."""
    pipe = pipeline()
    seconds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    absent: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for turn, (name, contender) in product(range(rounds + 1), CONTENDERS.items()):
            if name in absent:
                continue
            try:
                start = time.perf_counter()
                with contender(pipe, Path(folder)) as norms:
                    call(pipe, steps)
                spent = time.perf_counter() - start  # leaving waits for what is still to be written
            except ModuleNotFoundError as error:
                absent[name] = f"not installed ({error.name})"
                continue
            expected = 4 * (DOUBLE + SINGLE) * steps
            if norms and len(norms) != expected:
                raise RuntimeError(f"{name} made {len(norms)} norms, not {expected}")
            if turn:  # the first warms up, and makes the run that the others add to
                seconds[name].append(spent)
    lines = [
        f"{DOUBLE} + {SINGLE} blocks of {HEADS} x {HEAD_DIM} channels, {(SIDE // 16) ** 2} image and "
        f"{TEXT_TOKENS} text tokens, {steps} steps, {rounds} rounds, one thread.",
        "",
        "| | ms a step, median | least to most | over nothing, median of rounds |",
        "|---|---|---|---|",
    ]
    for name, values in seconds.items():
        if name in absent:
            lines.append(f"| {name} | {absent[name]} | | |")
            continue
        ms = [1000 * v / steps for v in values]
        ratios = [v / w - 1 for v, w in zip(values, seconds["nothing"], strict=True)]
        lines.append(
            f"| {name} | {statistics.median(ms):.1f} | {min(ms):.1f} to {max(ms):.1f} | "
            f"{statistics.median(ratios):+.1%} |"
        )
    return "\n".join(lines)
