"""Present tense: what happens while the model runs. Hooks, one clock, and the run they fill."""

from stepscope.hooks.capture import Capture
from stepscope.hooks.errors import StepscopeWarning
from stepscope.hooks.families import register, register_pipeline
from stepscope.hooks.recorder import record
from stepscope.hooks.recording import Recording
from stepscope.hooks.verify import Finding, verify

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
