"""The workshop: a procedural world, and the small models trained on it in published layouts."""

import stepscope  # noqa: F401  (in a checkout this package is `stepscope.pocket`: stepscope/checkout.py)
