"""Which batches of a run this process makes, where several make one run on purpose.

A claim is a lock on a batch, which the operating system drops when the process ends, however it ends: a
batch of a killed process is free again at once. It is held until the batch's samples are done, which is
a while after the pipeline has made them: they are written by another thread.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from stepscope.hooks.lock import Lock
from stepscope.hooks.store import Run
from stepscope.probes.grid import Cell

Batch = Sequence[Cell]
_NAME = "claim-"


def at_work(run: Run) -> list[str]:
    """The processes that make samples of a run now, in words, each once."""
    found = []
    for file in sorted(run.lock(_NAME).path.parent.glob(f".{_NAME}*.lock")):
        lock = Lock(file)
        if lock.take():
            lock.drop()
        else:
            found.append(lock.holder())
    return list({one.partition(" (since")[0]: one for one in reversed(found)}.values())


class Claims:
    """The batches of one run that this process has claimed; none when it is closed."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._held: dict[int, tuple[Lock, Batch]] = {}

    def close(self) -> None:
        """Give up every claim."""
        for lock, _ in self._held.values():
            lock.drop()
        self._held.clear()

    def each(self, batches: Sequence[Batch]) -> Iterator[Batch]:
        """Those that are available, each claimed before it is given.

        One that another process makes is asked for again at the end: that process may have died.
        """
        left, passed = list(batches), 0
        while passed < len(left):
            batch = left.pop(0)
            if self.take(batch):
                passed = 0
                yield batch
            elif not self._done(batch):
                left.append(batch)
                passed += 1

    def take(self, batch: Batch) -> bool:
        """Claim a batch of which a sample is not done; False if it is done, or another process makes it."""
        self._drop_done()
        lock = self._lock(batch)
        if not lock.take():
            return False
        if self._done(batch):  # by the time that it was free
            lock.drop()
            return False
        self._held[batch[0].index] = lock, batch
        return True

    def makers(self, batches: Sequence[Batch]) -> list[str]:
        """Who makes these batches, which are not done, in words, each process once."""
        return list(dict.fromkeys(self._lock(batch).holder() for batch in batches))

    def forget(self, batches: Iterable[Batch]) -> None:
        """Remove the files of claims on these batches, of which every sample is done.

        Another process may have given the run more places meanwhile, and make those.
        """
        for batch in batches:
            with suppress(OSError):
                self._lock(batch).path.unlink()

    def _drop_done(self) -> None:
        for index, (lock, batch) in list(self._held.items()):
            if self._done(batch):
                lock.drop()
                del self._held[index]

    def _done(self, batch: Batch) -> bool:
        return all(self._run.is_done(cell.index) for cell in batch)

    def _lock(self, batch: Batch) -> Lock:
        return self._run.lock(f"{_NAME}{batch[0].index}")
