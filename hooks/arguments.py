"""The arguments of a pipeline call as JSON: numbers and words as they are, everything else by its kind."""

import json
from collections.abc import Mapping
from math import isfinite
from typing import Any

import numpy as np
import torch

PROMPTS = ("prompt", "negative_prompt")
"""Arguments that are coordinates of their own."""

MOST = 1000  # numbers of a list or an array of one axis that are told one by one: sigmas, timesteps


def described(arguments: Mapping[str, Any]) -> str:
    """The arguments that are not prompts, callbacks or generators, without those that are None.

    JSON has no word for a number that is not finite: it is the text "nan", "inf" or "-inf".
    """
    told = {
        name: _told(value)
        for name, value in arguments.items()
        if name not in (*PROMPTS, "generator", "kwargs")
        and not name.startswith("callback")
        and value is not None
    }
    return json.dumps(told, sort_keys=True, allow_nan=False)


def _told(value: Any) -> Any:
    try:
        return _value(value)
    except (
        Exception
    ):  # one that holds itself, or raises where it is looked at: no call is lost by it
        return type(value).__name__


def _value(value: Any) -> Any:
    """A JSON value that tells of an argument."""
    if isinstance(value, float):
        return value if isfinite(value) else str(float(value))
    if isinstance(value, (str, int, type(None))):
        return value
    if isinstance(value, np.ndarray | np.generic | torch.Tensor) and _few(value):
        return _value(value.tolist())
    if isinstance(value, Mapping):
        return {str(k): _value(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_value(v) for v in value]
    shape = getattr(value, "shape", None) or getattr(value, "size", None)
    return (
        f"{type(value).__name__} {tuple(shape)}"
        if isinstance(shape, tuple)
        else type(value).__name__
    )


def _few(array: Any) -> bool:
    """Whether an array is one number, or a row of few."""
    return array.ndim == 0 or (array.ndim == 1 and len(array) <= MOST)
