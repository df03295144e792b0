"""Seconds are the device's own, also where its work is only enqueued."""

import time
from types import SimpleNamespace
from typing import Any

import torch

from stepscope.hooks.stopwatch import Stopwatch


class Event:
    """An event of a device that takes a second for all that it is given."""

    clock = 0.0

    def __init__(self, enable_timing: bool = False) -> None:
        self.timed, self.stream, self.at = enable_timing, "", 0.0

    def record(self, stream: str) -> None:
        Event.clock += 1000
        self.stream, self.at = stream, Event.clock

    def synchronize(self) -> None:
        assert self.timed

    def elapsed_time(self, end: "Event") -> float:
        return end.at - self.at


def test_an_intel_gpu_is_timed_by_events_in_its_own_stream(monkeypatch):
    library = SimpleNamespace(Event=Event, current_stream=lambda device: f"stream of {device}")
    monkeypatch.setattr(torch, "get_device_module", lambda device: library)
    watch = Stopwatch(torch.device("xpu:1"))
    start, end = watch.now(), watch.now()
    assert start.stream == "stream of xpu:1"
    assert watch.seconds(start, end) == 1.0


def test_an_accelerator_without_known_events_is_waited_for(monkeypatch):
    device = torch.device("hpu:0")

    def wait(given: Any) -> None:
        assert given == device
        time.sleep(0.05)

    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("hpu"))
    monkeypatch.setattr(torch.accelerator, "synchronize", wait)
    watch = Stopwatch(device)
    start = watch.now()
    assert watch.seconds(start, watch.now()) >= 0.05
