"""An argument of a network's forward pass, wherever the caller put it, and the pass's rows."""

from collections.abc import Mapping
from typing import Any

import torch


def argument(args: tuple[Any, ...], kwargs: Mapping[str, Any], place: int, name: str) -> Any:
    """The argument `name`, which is the `place`-th by position; None if it was not given."""
    return args[place] if len(args) > place else kwargs.get(name)


def rows_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[int, torch.device]:
    """How many rows a pass has, and where they are: its first argument, a tensor or a list of tensors."""
    rows = args[0] if args else next(iter(kwargs.values()))
    return len(rows), rows[0].device
