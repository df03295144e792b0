"""Present tense: what happens while the model runs. Hooks, one clock, and the run they fill."""

from hooks.capture import Capture
from hooks.recorder import Recording, record
from hooks.verify import Finding, verify

__all__ = ["Capture", "Finding", "Recording", "record", "verify"]
