"""Record what an identity-preserving diffusion model does at every denoising step, and measure it.

    from stepscope import record

    with record(pipe, "run.zarr", faces=["ada.jpg"]):
        pipe("a portrait at the beach", num_inference_steps=28)

Its names stand in `__init__.pyi` and are imported when they are first used: a run is read without torch.
"""

import lazy_loader

from stepscope import checkout

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

checkout.alias()
