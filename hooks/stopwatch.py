"""Time on the device's own clock: events where there is a GPU, without waiting for it."""

import time
from typing import Any

import torch

Moment = Any
"""A float (seconds) on a CPU, a recorded event on a GPU; a float also on what has no events."""


class Stopwatch:
    """Moments of one device and the seconds between them.

    A GPU's moments are events in the device's current stream: taking one does not synchronise;
    reading the seconds between two does, so that is left to the end of a pipeline call. Other
    accelerators are waited for at each moment: what was only enqueued has taken no time.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def now(self) -> Moment:
        if self.device.type in ("cuda", "xpu"):
            library: Any = torch.get_device_module(self.device)
            # The device's own stream: `Event.record()` alone takes that of whichever card is current.
            event = library.Event(enable_timing=True)
            event.record(library.current_stream(self.device))
            return event
        if self.device.type == "mps":
            event = torch.mps.Event(enable_timing=True)
            event.record()
            return event
        here = torch.accelerator.current_accelerator()
        if (
            here is not None and here.type == self.device.type
        ):  # its events are not known: wait for it
            torch.accelerator.synchronize(self.device)
        return time.perf_counter()

    def seconds(self, start: Moment, end: Moment) -> float:
        """Seconds from start to end; waits for a GPU to reach `end`."""
        if isinstance(end, float):
            return end - start
        end.synchronize()
        return start.elapsed_time(end) / 1000
