"""Imperative: what will run. Backbones, adapters, faces and the grid, on top of `record`."""

import stepscope  # noqa: F401  (in a checkout this package is `stepscope.probes`: stepscope/checkout.py)
