"""Past tense: the transformer is gone and only the record is left."""

import stepscope  # noqa: F401  (in a checkout this package is `stepscope.analysis`: stepscope/checkout.py)
