"""Replace a method of one object for as long as a `with` lasts."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def replaced(owner: object, name: str, around: Callable[..., Any]) -> Iterator[None]:
    """Route `owner.name(*args, **kwargs)` through `around(original, *args, **kwargs)`.

    Only the instance is touched, and what stood in its dictionary before stands there after.
    `functools.wraps` keeps the signature: diffusers inspects those of `set_timesteps` and `step`.
    """
    original = getattr(owner, name)
    before = vars(owner).get(name)

    @functools.wraps(original)
    def method(*args: Any, **kwargs: Any) -> Any:
        return around(original, *args, **kwargs)

    # object.__setattr__: a torch module's own __setattr__ would file the function among its parameters.
    object.__setattr__(owner, name, method)
    try:
        yield
    finally:
        if before is None:
            object.__delattr__(owner, name)
        else:
            object.__setattr__(owner, name, before)
