"""Present tense: what happens while the model runs. Hooks, one clock, and the run they fill.

Its names stand in `__init__.pyi` and are imported when they are first used: a run is read without torch.
"""

import lazy_loader

import stepscope  # noqa: F401  (in a checkout this package is `stepscope.hooks`: stepscope/checkout.py)

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
