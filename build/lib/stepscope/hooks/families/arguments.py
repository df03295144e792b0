"""An argument of a network's forward pass, wherever the caller put it."""

from collections.abc import Mapping
from typing import Any


def argument(args: tuple[Any, ...], kwargs: Mapping[str, Any], place: int, name: str) -> Any:
    """The argument `name`, which is the `place`-th by position; None if it was not given."""
    return args[place] if len(args) > place else kwargs.get(name)
