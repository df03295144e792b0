"""Record what an identity-preserving diffusion model does at every denoising step, and measure it.

    from stepscope import record

    with record(pipe, "run.zarr", faces=["ada.jpg"]):
        pipe("a portrait at the beach", num_inference_steps=28)

Names are imported when they are first used: to read a run needs neither torch nor diffusers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from stepscope import checkout as _checkout

if TYPE_CHECKING:
    from stepscope.hooks import (
        Capture,
        Finding,
        Recording,
        StepscopeWarning,
        record,
        register,
        register_pipeline,
        verify,
    )

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

_checkout.alias()


def __getattr__(name: str) -> Any:
    """The object of that name, out of `stepscope.hooks`."""
    if name not in __all__:
        raise AttributeError(f"module 'stepscope' has no attribute {name!r}")
    return getattr(import_module("stepscope.hooks"), name)


def __dir__() -> list[str]:
    return [*__all__]
