"""Time on the device's own clock: events where there is a GPU, without waiting for it."""

import time
from typing import Any

import torch

Moment = Any
"""A float (seconds) on a CPU, a recorded event on a GPU."""


class Stopwatch:
    """Moments of one device and the seconds between them.

    A GPU's moments are events in the device's current stream: taking one does not synchronise;
    reading the seconds between two does, so that is left to the end of a pipeline call.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def now(self) -> Moment:
        if self.device.type == "cuda":
            # The device's own stream: `Event.record()` alone takes that of whichever card is current.
            event = torch.cuda.Event(enable_timing=True)
            event.record(torch.cuda.current_stream(self.device))
            return event
        if self.device.type == "mps":
            event = torch.mps.Event(enable_timing=True)
            event.record()
            return event
        return time.perf_counter()

    def seconds(self, start: Moment, end: Moment) -> float:
        """Seconds from start to end; waits for a GPU to reach `end`."""
        if isinstance(end, float):
            return end - start
        end.synchronize()
        return start.elapsed_time(end) / 1000
