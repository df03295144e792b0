"""How far a run is: a bar in a terminal, plain lines in a log."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Advance = Callable[[str], None]
"""Tell that one more step is done; the text says where it is."""

LOG_SECONDS = 15.0  # between plain lines


@contextmanager
def progress(total: int, console: Console | None = None) -> Iterator[Advance]:
    """A bar over `total` denoising steps with the time left; yields what advances it by one."""
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield _lines(total, console)
        return
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps"),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=total)
        yield lambda text: bar.update(task, advance=1, description=text)


def _lines(total: int, console: Console) -> Advance:
    start = time.monotonic()
    state = {"done": 0, "said": start}

    def advance(text: str) -> None:
        state["done"] += 1
        now = time.monotonic()
        last = state["done"] == total
        if now - state["said"] < LOG_SECONDS and not last:
            return
        state["said"] = now
        left = (now - start) / state["done"] * (total - state["done"])
        console.print(
            f"{state['done']}/{total} steps, {left:.0f} s left, {text}",
            highlight=False,
            soft_wrap=True,
        )

    return advance
