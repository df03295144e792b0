"""The operators that stand in a compiled graph where hooks would run, and run them when the graph runs.

The graph gives an operator the module's number, a tensor and no constant. Hooks are shown what the module
returned, and no arguments.
"""

from itertools import count
from typing import Any, Literal, NoReturn, no_type_check
from weakref import WeakKeyDictionary, WeakValueDictionary

import torch
from torch import nn

from stepscope.hooks.errors import UnsupportedPipelineError
from stepscope.hooks.laid import HOOK, OUTSIDE, hooks_of, laid, pre_hooks_of, run

Kind = Literal["", "read", "change"]
"""What the operator does: nothing, show the hooks a value, or let them change it."""

_MODULES: WeakValueDictionary[int, nn.Module] = WeakValueDictionary()
_NUMBERS: WeakKeyDictionary[nn.Module, torch.Tensor] = WeakKeyDictionary()
_NEXT = count()


def number_of(module: nn.Module) -> torch.Tensor:
    """A tensor that names the module to the operators, the same at every time."""
    if module not in _NUMBERS:
        number = next(_NEXT)
        with torch.inference_mode(False):
            _NUMBERS[module] = torch.tensor([number], dtype=torch.int64, device="cpu")
        _MODULES[number] = module
    return _NUMBERS[module]


class _NoNames(dict[str, Any]):
    """Stands for the named arguments of a module inside a graph."""

    def _refuse(self, *_: Any) -> NoReturn:
        raise UnsupportedPipelineError(
            "a module inside a compiled network is read whose arguments are needed, and compiled networks "
            "show what their modules return alone: do not compile the network that is recorded"
        )

    __getitem__ = get = keys = items = values = __contains__ = __iter__ = _refuse


class _NoArguments(tuple[Any, ...]):
    __slots__ = ()
    __getitem__ = __iter__ = _NoNames._refuse  # type: ignore[assignment]


@no_type_check
def show(number: torch.Tensor, value: Any, kind: Kind, after: bool) -> None:
    """Traced: put the operator into the graph. value: a tensor, or several with None among them."""
    if isinstance(value, torch.Tensor):
        values, form = [value], ""
    else:
        values = [part for part in value if part is not None]
        form = "".join(["-" if part is None else "t" for part in value])
    operator = torch.ops.stepscope.change if kind == "change" else torch.ops.stepscope.read
    operator(number, values, form, after)


def _shown(number: torch.Tensor, values: list[torch.Tensor], form: str, after: bool) -> Any:
    """What the hooks of a module make of a value in a graph that runs."""
    module = _MODULES.get(int(number))
    left = iter(values)
    value: Any = tuple(next(left) if part == "t" else None for part in form) if form else values[0]
    if module is None:
        return value
    if after:
        hooks = [(hook, k) for hook, k in laid(hooks_of(module)) if not getattr(hook, OUTSIDE)]
        return run(module, hooks, _NoArguments(), _NoNames(), value)
    for told, with_kwargs in laid(pre_hooks_of(module)):
        given: Any = ((value,), {}) if with_kwargs else ((value,),)
        made = getattr(told, HOOK)(module, *given)
        if made is not None:
            value = made[0][0] if with_kwargs else made[0]
    return value


def _read(number: torch.Tensor, values: list[torch.Tensor], form: str, after: bool) -> None:
    _shown(number, values, form, after)


def _change(number: torch.Tensor, values: list[torch.Tensor], form: str, after: bool) -> None:
    made = _shown(number, values, form, after)
    parts = [made] if isinstance(made, torch.Tensor) else [p for p in made if p is not None]
    for value, part in zip(values, parts, strict=True):
        if part is not value:
            value.copy_(part)


def _nothing(number: torch.Tensor, values: list[torch.Tensor], form: str, after: bool) -> None:
    pass


# The number is said to change, for an operator that changes nothing would be left out of the graph. CUDA
# graphs are split at the operators, for what a graph replays runs no Python.
_LIBRARY = torch.library.Library("stepscope", "FRAGMENT")
_TAGS = (torch.Tag.cudagraph_unsafe,) if hasattr(torch.Tag, "cudagraph_unsafe") else ()
for _name, _values, _made in (("read", "Tensor[]", _read), ("change", "Tensor(b!)[]", _change)):
    _LIBRARY.define(
        f"{_name}(Tensor(a!) number, {_values} values, str form, bool after) -> ()", tags=_TAGS
    )
    _LIBRARY.impl(_name, _made, "CompositeExplicitAutograd")
    torch.library.register_fake(f"stepscope::{_name}", _nothing, lib=_LIBRARY)
