"""A background thread that writes finished samples, so that the device does not wait for the disk."""

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

Job = Callable[[], None]
WAITING = 2
"""Jobs that may wait while one runs."""


def _nothing() -> None:
    pass


@contextmanager
def writing(waiting: int = WAITING) -> Iterator["Writer"]:
    """A writer; leaving waits for all of its jobs and raises the error of one, unless another is raised."""
    with closing(Writer(waiting)) as writer:
        yield writer
    writer.raise_failed()


class Writer:
    """Runs jobs in order on one thread. The queue is short, so memory does not grow with samples.

    An error of a job is raised at the next `put` or `settle`, and later jobs are dropped.
    """

    def __init__(self, waiting: int = WAITING) -> None:
        self._jobs: queue.Queue[tuple[Job, Job] | None] = queue.Queue(waiting)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="stepscope writer", daemon=True)
        self._thread.start()

    def put(self, job: Job) -> None:
        """Queue a job; waits while `waiting` jobs are ahead of it."""
        self.raise_failed()
        self.leave(job)

    def leave(self, job: Job, dropped: Job = _nothing) -> None:
        """As `put`, without raising: an error is left to the next `put`, `settle` or `raise_failed`.

        dropped: done instead of a job that is dropped; raises nothing.
        """
        self._jobs.put((job, dropped))

    def settle(self) -> None:
        """Wait until every job so far has run."""
        self._jobs.join()
        self.raise_failed()

    def close(self) -> None:
        """Wait until every job has run, and end the thread."""
        self._jobs.put(None)
        self._thread.join()

    def raise_failed(self) -> None:
        """Raise the error of a job, once."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _work(self) -> None:
        while (both := self._jobs.get()) is not None:
            job, dropped = both
            if self._error is None:
                try:
                    job()
                except BaseException as error:
                    self._error = error
            else:
                dropped()
            self._jobs.task_done()
