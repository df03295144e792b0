"""Hooks that also run where `torch.compile` has made a graph of the module.

Compiled as they are, hooks would become part of the graph of the first block, with that block's numbers
as constants, and nothing would tell a graph with them from one without. So a module with hooks is given a
subclass of its own class, which the compiler tells apart, and the hooks stand aside while it traces:

- Where Python calls a compiled module, its hooks run around the call, outside the graph.
- Inside a graph, an operator of ours stands where the hooks would run. The graph gives it the module's
  number, a tensor and no constant, so that all blocks of a kind share one graph; when the graph runs, the
  operator runs the hooks. They see the module's output, and no arguments.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial, wraps
from itertools import count
from typing import Any, Literal, NoReturn
from weakref import WeakKeyDictionary, WeakValueDictionary

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from stepscope.hooks.errors import UnsupportedPipelineError
from stepscope.hooks.order import reads

Kind = Literal["", "read", "change"]
"""What the operator in a graph does: nothing, show the hooks a value, or let them change it."""

_HOOK, _OUTSIDE = "_stepscope_hook", "_stepscope_outside"
_NUMBER, _PLAIN = "_stepscope_number", "_stepscope_plain"
_AROUND: set[int] = set()
"""ids of modules whose hooks run around their compiled call at present."""
_MODULES: WeakValueDictionary[int, nn.Module] = WeakValueDictionary()
_NUMBERS: WeakKeyDictionary[nn.Module, torch.Tensor] = WeakKeyDictionary()
_CHANGED: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()
_NEXT = count()


def after(
    module: nn.Module,
    hook: Callable[..., Any],
    *,
    with_kwargs: bool = False,
    prepend: bool = False,
    outside: bool = False,
) -> RemovableHandle:
    """`module.register_forward_hook`, for a hook that also runs if the module is compiled.

    outside: of a whole network; it runs around the compiled network and never inside another graph.
    """
    told = _aside(hook, outside=outside)
    handle = module.register_forward_hook(told, with_kwargs=with_kwargs, prepend=prepend)
    return _Handle(handle, module)


def before(
    module: nn.Module,
    hook: Callable[..., Any],
    *,
    with_kwargs: bool = False,
    prepend: bool = False,
    outside: bool = False,
) -> RemovableHandle:
    """`module.register_forward_pre_hook`, as `after`. Inside a graph it sees the first argument alone."""
    told = _aside(hook, outside=outside)
    handle = module.register_forward_pre_hook(told, with_kwargs=with_kwargs, prepend=prepend)
    return _Handle(handle, module)


def _aside(hook: Callable[..., Any], *, outside: bool = False) -> Callable[..., Any]:
    """The hook, which does nothing while its module is traced or while it runs around it."""

    @wraps(hook)
    def told(module: nn.Module, *seen: Any) -> Any:
        if torch.compiler.is_compiling() or id(module) in _AROUND:
            return None
        return hook(module, *seen)

    setattr(told, _HOOK, hook)
    setattr(told, _OUTSIDE, outside)
    return told


def exchanged(handle: RemovableHandle, around: Callable[..., Callable[..., Any]]) -> None:
    """Put `around(hook)` in the place of a hook that was laid."""
    hooks: Any = handle.hooks_dict_ref()
    told = hooks[handle.id]
    hooks[handle.id] = _aside(around(getattr(told, _HOOK)), outside=getattr(told, _OUTSIDE))


class _Handle(RemovableHandle):
    """As torch's; the module gets its own class back with the removal of its last hook."""

    def __init__(self, handle: RemovableHandle, module: nn.Module) -> None:
        vars(self).update(vars(handle))
        self._module = module
        settle(module)

    def remove(self) -> None:
        super().remove()
        settle(self._module)


@contextmanager
def as_if_changed(*modules: nn.Module) -> Iterator[None]:
    """Compile these modules as if they had a hook that changes their output.

    Blocks of a kind share one graph only if all of them, or none, may be changed.
    """
    for module in modules:
        _CHANGED[module] = _CHANGED.get(module, 0) + 1
        settle(module)
    try:
        yield
    finally:
        for module in modules:
            _CHANGED[module] -= 1
            settle(module)


def settle(module: nn.Module) -> None:
    """Give a module the class that its hooks ask for."""
    plain = plain_class(module)
    made = _laid(_pre_hooks(module)), _laid(_hooks(module))
    if not made[0] and not made[1] and not _CHANGED.get(module):
        kind = plain
        vars(module).pop(_NUMBER, None)
    else:
        first, last = (_kind(hooks) for hooks in made)
        kind = _with_hooks(plain, first, "change" if _CHANGED.get(module) else last)
        vars(module)[_NUMBER] = _number(module)
    if type(module) is not kind:
        object.__setattr__(module, "__class__", kind)


def plain_class(module: nn.Module) -> type[nn.Module]:
    """The class that a module has without hooks of ours."""
    return vars(type(module)).get(_PLAIN, type(module))


def _number(module: nn.Module) -> torch.Tensor:
    """A tensor that names the module to the operators, the same at every time."""
    if module not in _NUMBERS:
        number = next(_NEXT)
        with torch.inference_mode(False):
            _NUMBERS[module] = torch.tensor([number], dtype=torch.int64, device="cpu")
        _MODULES[number] = module
    return _NUMBERS[module]


Hooks = list[tuple[Callable[..., Any], bool]]


def _pre_hooks(module: nn.Module) -> tuple[Mapping[int, Any], Mapping[int, bool]]:
    return module._forward_pre_hooks, module._forward_pre_hooks_with_kwargs


def _hooks(module: nn.Module) -> tuple[Mapping[int, Any], Mapping[int, bool]]:
    return module._forward_hooks, module._forward_hooks_with_kwargs


def _laid(of_module: tuple[Mapping[int, Any], Mapping[int, bool]]) -> Hooks:
    """Our hooks among a module's, in order, and whether each takes named arguments."""
    hooks, with_kwargs = of_module
    return [(hook, key in with_kwargs) for key, hook in hooks.items() if hasattr(hook, _HOOK)]


def _kind(hooks: Hooks) -> Kind:
    inside = [hook for hook, _ in hooks if not getattr(hook, _OUTSIDE)]
    if not inside:
        return ""
    return "read" if all(reads(hook) for hook in inside) else "change"


@cache
def _with_hooks(plain: type[nn.Module], first: Kind, last: Kind) -> type[nn.Module]:
    """A subclass whose calls run our hooks; the compiler keeps its graphs apart from the plain class's."""
    call = plain.__call__

    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            if first:
                _show(getattr(self, _NUMBER), args[0], first, False)
            output = call(self, *args, **kwargs)
            if last:
                _show(getattr(self, _NUMBER), output, last, True)
            return output
        if self._compiled_call_impl is None or id(self) in _AROUND:
            return call(self, *args, **kwargs)
        return _around(self, partial(call, self), args, kwargs)

    same = {key: getattr(plain, key) for key in ("__module__", "__qualname__", "__doc__")}
    laid = {"__call__": __call__, _PLAIN: plain, "__reduce_ex__": _as_plain}
    metaclass: Any = type(plain)
    return metaclass(plain.__name__, (plain,), same | laid)


def _as_plain(self: Any, protocol: Any) -> Any:
    """A copy is of the plain class: its hooks are not run inside a graph."""
    kind: Any = plain_class(self)
    make, given, state, *rest = kind.__reduce_ex__(self, protocol)
    given = tuple(kind if part is type(self) else part for part in given)
    if isinstance(state, dict):
        state = {name: value for name, value in state.items() if name != _NUMBER}
    return make, given, state, *rest


def _around(module: nn.Module, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """The call of a compiled module with the hooks around it, as torch runs them."""
    for told, with_kwargs in _laid(_pre_hooks(module)):
        hook = getattr(told, _HOOK)
        if with_kwargs:
            args, kwargs = hook(module, args, kwargs) or (args, kwargs)
        elif (made := hook(module, args)) is not None:
            args = made if isinstance(made, tuple) else (made,)
    _AROUND.add(id(module))
    try:
        output = call(*args, **kwargs)
    finally:
        _AROUND.discard(id(module))
    return _run(module, _laid(_hooks(module)), args, kwargs, output)


def _run(module: nn.Module, hooks: Hooks, args: Any, kwargs: Any, output: Any) -> Any:
    for told, with_kwargs in hooks:
        hook = getattr(told, _HOOK)
        given = (args, kwargs) if with_kwargs else (args,)
        made = hook(module, *given, output)
        output = output if made is None else made
    return output


# A network that was compiled by `torch.compile(network)` is inside another module.


def unwrapped(network: Any) -> Any:
    """The network itself, of one that `torch.compile` wrapped."""
    return network._orig_mod if isinstance(network, torch._dynamo.OptimizedModule) else network


def is_compiled(module: nn.Module) -> bool:
    """Whether a module's own call runs a graph."""
    return unwrapped(module) is not module or module._compiled_call_impl is not None


def check_seen(network: nn.Module, *, wrapped: bool) -> None:
    """Raise UnsupportedPipelineError where a hook of ours is inside a graph that would not run it.

    wrapped: the network was compiled by `torch.compile(network)`.
    """
    for root in network.modules():
        if root._compiled_call_impl is None and not (wrapped and root is network):
            continue
        for name, module in root.named_modules():
            hooks = [*_laid(_pre_hooks(module)), *_laid(_hooks(module))]
            if module is not root and any(getattr(hook, _OUTSIDE) for hook, _ in hooks):
                raise UnsupportedPipelineError(
                    f"{type(root).__name__} is compiled, and something at its {name} (such as PuLID, or a "
                    "ControlNet of a U-Net) is read or added by hooks that a graph does not run: do not "
                    "compile it, or compile its blocks alone (compile_repeated_blocks)"
                )


@cache
def _optimized(plain: type[nn.Module]) -> type[nn.Module]:
    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:
        return _around(self._orig_mod, partial(plain.__call__, self), args, kwargs)

    metaclass: Any = type(plain)
    return metaclass(plain.__name__, (plain,), {"__call__": __call__, _PLAIN: plain})


@contextmanager
def around_optimized(pipe: Any, names: tuple[str, ...]) -> Iterator[None]:
    """Run hooks around those networks of a pipeline that `torch.compile` wrapped, until the `with` ends."""
    found: list[Any] = [getattr(pipe, name, None) for name in names]
    wrapped: list[Any] = [network for network in found if unwrapped(network) is not network]
    for network in wrapped:
        object.__setattr__(network, "__class__", _optimized(plain_class(network)))
    try:
        yield
    finally:
        for network in wrapped:
            object.__setattr__(network, "__class__", plain_class(network))


# Inside a graph.


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


def _show(number: torch.Tensor, value: Any, kind: Kind, after: bool) -> None:
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
        hooks = [(hook, k) for hook, k in _laid(_hooks(module)) if not getattr(hook, _OUTSIDE)]
        return _run(module, hooks, _NoArguments(), _NoNames(), value)
    for told, with_kwargs in _laid(_pre_hooks(module)):
        given: Any = ((value,), {}) if with_kwargs else ((value,),)
        made = getattr(told, _HOOK)(module, *given)
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
