"""The VAE's encoding of a control image that many calls share, made once."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from stepscope.hooks.patch import replaced

_LAST: WeakKeyDictionary[nn.Module, tuple[Tensor, Any]] = WeakKeyDictionary()


def encoded_once(vae: nn.Module) -> AbstractContextManager[None]:
    """While it lasts, `vae.encode` of the same images as last time answers what it answered then.

    The answer is a distribution: who samples it draws anew, as before.
    """

    def around(original: Callable[..., Any], images: Tensor, *args: Any, **more: Any) -> Any:
        last = _LAST.get(vae)
        if last is not None and not args and not more and same(last[0], images):
            return last[1]
        answer = original(images, *args, **more)
        if not args and not more:
            _LAST[vae] = images.clone(), answer
        return answer

    return replaced(vae, "encode", around)


def same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are one in every bit, type and place."""
    return (a.shape, a.dtype, a.device) == (b.shape, b.dtype, b.device) and torch.equal(a, b)
