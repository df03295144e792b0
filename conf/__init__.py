"""Nouns: every choice of a run has a name here. YAML alone."""

import stepscope  # noqa: F401  (in a checkout this package is `stepscope.conf`: stepscope/checkout.py)
