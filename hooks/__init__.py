"""Present tense: what happens while the model runs. Hooks, one clock, and the run they fill."""

from hooks.capture import Capture
from hooks.errors import StepscopeWarning
from hooks.families import register, register_pipeline
from hooks.recorder import record
from hooks.recording import Recording
from hooks.verify import Finding, verify

__all__ = [
    "Capture",
    "Finding",
    "Recording",
    "StepscopeWarning",
    "record",
    "register",
    "register_pipeline",
    "verify",
]
