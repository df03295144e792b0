"""Replace a method of one object for as long as a `with` lasts."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from stepscope.hooks.errors import UnsupportedPipelineError

_LAID = "_stepscope_laid"


@contextmanager
def replaced(owner: object, name: str, around: Callable[..., Any]) -> Iterator[None]:
    """Route `owner.name(*args, **kwargs)` through `around(original, *args, **kwargs)`.

    Only the instance is touched, and what stood in its dictionary before stands there after, also
    if several replacements of one method end in another order than that they were made in.
    `functools.wraps` keeps the signature: diffusers inspects those of `set_timesteps` and `step`.
    """
    original = getattr(owner, name)
    before = vars(owner).get(name)
    laid = {"active": True, "before": before}

    @functools.wraps(original)
    def method(*args: Any, **kwargs: Any) -> Any:
        if not laid["active"]:
            return original(*args, **kwargs)
        return around(original, *args, **kwargs)

    setattr(method, _LAID, laid)
    # object.__setattr__: a torch module's own __setattr__ would file the function among its parameters.
    object.__setattr__(owner, name, method)
    try:
        yield
    finally:
        laid["active"] = False
        _remove_ended(owner, name)


def _remove_ended(owner: object, name: str) -> None:
    """Take away the replacements that have ended, from the last one down to the first that has not."""
    while True:
        laid = getattr(vars(owner).get(name), _LAID, None)
        if laid is None or laid["active"]:
            return
        if laid["before"] is None:
            object.__delattr__(owner, name)
        else:
            object.__setattr__(owner, name, laid["before"])


@contextmanager
def of_class(owner: Any, name: str, around: Callable[..., Any]) -> Iterator[None]:
    """As `replaced`, for a method that Python looks up in the class, such as `__call__`.

    Only this object is touched: it is given a subclass of the same name, and its class again after.
    """
    kind: Any = type(owner)
    original = getattr(kind, name)

    @functools.wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self is not owner:  # a copy of it
            return original(self, *args, **kwargs)
        return around(functools.partial(original, self), *args, **kwargs)

    setattr(method, _LAID, {})
    same = {key: getattr(kind, key) for key in ("__module__", "__qualname__", "__doc__")}
    laid = {name: method, "__reduce_ex__": _unlaid}
    owner.__class__ = type(kind)(kind.__name__, (kind,), same | laid)
    try:
        yield
    finally:
        owner.__class__ = kind


def _unlaid(self: Any, protocol: Any) -> Any:
    """What `copy` makes another object of: of the object's own class, with its own methods.

    `pickle` asks for the same, and is refused: the hooks on its networks are no part of them to keep.
    """
    laid = type(self)
    kind: Any = laid.__base__
    make, given, state, *rest = kind.__reduce_ex__(self, protocol)
    given = tuple(kind if part is laid else part for part in given)
    if isinstance(state, dict):
        state = {name: value for name, value in state.items() if not hasattr(value, _LAID)}
    return _made, (_Unpickled(kind.__name__), make, *given), state, *rest


class _Unpickled:
    """Stands among what an object is made of: copies take it as it is, and pickle raises."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __deepcopy__(self, memo: Any) -> "_Unpickled":
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise UnsupportedPipelineError(
            f"a {self.name} under `record` cannot be pickled, because its hooks belong to this process: "
            "pickle it before or after the `with`"
        )


def _made(refused: _Unpickled, make: Callable[..., Any], *given: Any) -> Any:
    return make(*given)


def of_this(network: nn.Module, hook: Callable[..., Any]) -> Callable[..., Any]:
    """The hook for this network alone. `copy.deepcopy` of a network takes its hooks along, and of a bound
    method all that it is bound to."""

    def told(module: nn.Module, *seen: Any) -> Any:
        return hook(module, *seen) if module is network else None

    return told


def is_laid(kind: type) -> bool:
    """Whether a class is one that `of_class` gave to an object."""
    return any(hasattr(value, _LAID) for value in vars(kind).values())
