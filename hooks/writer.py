"""A background thread that writes finished samples, so that the device does not wait for the disk."""

import queue
import threading
from collections.abc import Callable
from types import TracebackType

Job = Callable[[], None]
WAITING = 2
"""Jobs that may wait while one runs."""


class Writer:
    """Runs jobs in order on one thread. The queue is short, so memory does not grow with samples.

    Used as a context manager: leaving it waits for all jobs. An error of a job is raised at the
    next `put` or on leaving, and later jobs are dropped.
    """

    def __init__(self, waiting: int = WAITING) -> None:
        self._jobs: queue.Queue[Job | None] = queue.Queue(waiting)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="stepscope writer", daemon=True)

    def __enter__(self) -> "Writer":
        self._thread.start()
        return self

    def put(self, job: Job) -> None:
        """Queue a job; waits while `waiting` jobs are ahead of it."""
        self._raise()
        self._jobs.put(job)

    def settle(self) -> None:
        """Wait until every job so far has run."""
        self._jobs.join()
        self._raise()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._jobs.put(None)
        self._thread.join()
        if error is None:
            self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            if self._error is None:
                try:
                    job()
                except BaseException as error:
                    self._error = error
            self._jobs.task_done()
