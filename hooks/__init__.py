"""Present tense: what must happen while the model runs. Forward hooks, one clock, and the Zarr run they fill."""

from hooks.capture import Capture
from hooks.recorder import Recording, record

__all__ = ["Capture", "Recording", "record"]
