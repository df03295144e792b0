"""Present tense: what happens while the model runs. Hooks, one clock, and the run they fill."""

from hooks.capture import Capture
from hooks.recorder import Recording, record

__all__ = ["Capture", "Recording", "record"]
