"""Locks between processes that die with the process that holds them.

The operating system's own, through `filelock` (flock, or what Windows has; where a filesystem has no
locks, a marker file): a process that was killed holds nothing, so no lock is ever stale and none has to
be broken by its age. The numbers of process and host that are written into the file are for the message
alone. The file stays: one that is removed and made again would be two files to those who wait on NFS.
"""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, SoftFileLock, Timeout

from stepscope.hooks.errors import RunError

_LINE = 160  # bytes of a lock's file
WAIT = 300.0  # seconds for which a lock is waited for: growing a run takes less than one


class Lock:
    """A lock by its file, taken and dropped any number of times."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(path, thread_local=False)

    def take(self, seconds: float = 0.0) -> bool:
        """Take it, waiting so long; False if another process, or another object here, holds it."""
        try:
            self._lock.acquire(timeout=seconds, poll_interval=0.02)
        except Timeout:
            return False
        if not isinstance(self._lock, SoftFileLock):  # that one writes who holds it, and reads it
            with suppress(OSError):
                self._sign()
        return True

    def drop(self) -> None:
        """Let others take it."""
        self._lock.release()

    def _sign(self) -> None:
        # over what stands there: cutting a file first makes ext4 wait for the disk
        words = f"{os.getpid()}\n{socket.gethostname()}\n{time.strftime('%Y-%m-%d %H:%M:%S')}"
        file = os.open(self.path, os.O_WRONLY)
        try:
            os.write(file, f"{words}\n".ljust(_LINE).encode())
        finally:
            os.close(file)

    def holder(self) -> str:
        """Who took it last, in words: `process 12 on host gpu01 (since 2026-01-31 12:00:00)`."""
        try:
            pid, host, since, *_ = [*self.path.read_text().split("\n"), "", "", ""]
        except (OSError, ValueError):
            return "another process"
        since = f" (since {since})" if "-" in since else ""
        return f"process {pid} on host {host}{since}" if pid and host else "another process"


@contextmanager
def alone(path: Path, what: str) -> Iterator[None]:
    """Hold the lock of a file for as long as the `with`.

    Raises RunError if another process holds it for more than `WAIT` seconds; the message names the process
    and the file.
    """
    lock = Lock(path)
    if not lock.take(WAIT):
        raise RunError(
            f"{what} is held by {lock.holder()}, for more than {WAIT:.0f} s: wait until it ends; if "
            f"there is no such process, remove {path}"
        )
    try:
        yield
    finally:
        lock.drop()
