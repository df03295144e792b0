"""beartype as type checkers read annotations: an int is a float (PEP 484, the numeric tower)."""

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeDecorHintPep585DeprecationWarning
from jaxtyping import _decorator

# OmegaConf's own annotations are of `typing`'s older names.
warnings.filterwarnings("ignore", category=BeartypeDecorHintPep585DeprecationWarning)


def made_once(make: Callable[..., Any]) -> Callable[..., Any]:
    """`make`, whose result is kept for each set of arguments; not for those that have no hash."""
    kept = cache(make)

    def of(*given: Any, **named: Any) -> Any:
        try:
            return kept(*given, **named)
        except TypeError:
            return make(*given, **named)

    return of


# A function within another is checked anew each time the outer one runs: a hook for each site of each
# run. What checks it is made of its name and signature alone, and is made once.
_decorator._make_fn_with_signature = made_once(_decorator._make_fn_with_signature)
checked = made_once(beartype(conf=BeartypeConf(is_pep484_tower=True)))
