"""beartype as type checkers read annotations: an int is a float (PEP 484, the numeric tower)."""

import warnings

from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeDecorHintPep585DeprecationWarning

# OmegaConf's own annotations are of `typing`'s older names.
warnings.filterwarnings("ignore", category=BeartypeDecorHintPep585DeprecationWarning)

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
