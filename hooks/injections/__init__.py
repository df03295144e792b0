"""Injections: the places at which adapters add to a denoiser, and how much each adds there.

An adapter that no finder knows says so itself:

    with declare(pipe, [Declared("mine", "double.00", "image", module, added, base)]), record(pipe, path):
        pipe(...)
"""

from stepscope.hooks.injections.contributions import FINDERS, Contributions, Finder, injections_of
from stepscope.hooks.injections.declared import Declared, declare, returned
from stepscope.hooks.injections.injection import Injection, Source

__all__ = [
    "FINDERS",
    "Contributions",
    "Declared",
    "Finder",
    "Injection",
    "Source",
    "declare",
    "injections_of",
    "returned",
]
