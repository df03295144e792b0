"""Output that nobody reads to its end: `stepscope probe ... --dry | head`."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

UNREAD = 141  # exit status, 128 + SIGPIPE, as shells have it


@contextmanager
def may_be_cut() -> Iterator[None]:
    """End the process quietly where the reader of its output has seen enough, and left."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # else Python says so again when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(UNREAD) from None
