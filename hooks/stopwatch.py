"""Time on the device's own clock: CUDA events where there is a GPU, without waiting for it."""

import time
from typing import Any

import torch

Moment = Any
"""A float (seconds) on a CPU, a recorded `torch.cuda.Event` on a GPU."""


class Stopwatch:
    """Moments of one device and the seconds between them.

    A GPU's moments are events in the current stream: taking one does not synchronise; reading the
    seconds between two does, so that is left to the end of a pipeline call.
    """

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"

    def now(self) -> Moment:
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, start: Moment, end: Moment) -> float:
        """Seconds from start to end; waits for a GPU to reach `end`."""
        if not self.cuda:
            return end - start
        end.synchronize()
        return start.elapsed_time(end) / 1000
