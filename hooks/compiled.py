"""Hooks that also run where `torch.compile` has made a graph of the module.

Compiled as they are, hooks would become part of the graph of the first block, with that block's numbers
as constants, and nothing would tell a graph with them from one without. So a module with hooks is given a
subclass of its own class, which the compiler tells apart, and the hooks stand aside while it traces:

- Where Python calls a compiled module, its hooks run around the call, outside the graph.
- Inside a graph, an operator of ours stands where the hooks would run. The graph gives it the module's
  number, a tensor and no constant, so that all blocks of a kind share one graph; when the graph runs, the
  operator runs the hooks. They see the module's output, and no arguments.

What the compiler traces is marked `no_type_check`: it cannot trace what checks annotations in tests.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial, wraps
from typing import Any, no_type_check
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from stepscope.hooks.errors import UnsupportedPipelineError
from stepscope.hooks.in_graph import Kind, number_of, show
from stepscope.hooks.laid import HOOK, OUTSIDE, Hooks, hooks_of, laid, pre_hooks_of, run, unwrapped
from stepscope.hooks.order import reads

_NUMBER, _PLAIN = "_stepscope_number", "_stepscope_plain"
_AROUND: set[int] = set()
"""ids of modules whose hooks run around their compiled call at present."""
_CHANGED: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()


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
    return _laid(module, module.register_forward_hook, hook, outside, with_kwargs, prepend)


def before(
    module: nn.Module,
    hook: Callable[..., Any],
    *,
    with_kwargs: bool = False,
    prepend: bool = False,
    outside: bool = False,
) -> RemovableHandle:
    """`module.register_forward_pre_hook`, as `after`. Inside a graph it sees the first argument alone."""
    return _laid(module, module.register_forward_pre_hook, hook, outside, with_kwargs, prepend)


def _laid(
    module: nn.Module,
    register: Callable[..., RemovableHandle],
    hook: Callable[..., Any],
    outside: bool,
    with_kwargs: bool,
    prepend: bool,
) -> RemovableHandle:
    told = _aside(hook, outside=outside)
    return _Handle(register(told, with_kwargs=with_kwargs, prepend=prepend), module)


def _aside(hook: Callable[..., Any], *, outside: bool = False) -> Callable[..., Any]:
    """The hook, which does nothing while its module is traced or while it runs around it."""

    @no_type_check
    @wraps(hook)
    def told(module: nn.Module, *seen: Any) -> Any:
        if torch.compiler.is_compiling() or id(module) in _AROUND:
            return None
        return hook(module, *seen)

    setattr(told, HOOK, hook)
    setattr(told, OUTSIDE, outside)
    return told


def exchanged(handle: RemovableHandle, around: Callable[..., Callable[..., Any]]) -> None:
    """Put `around(hook)` in the place of a hook that was laid."""
    hooks: Any = handle.hooks_dict_ref()
    told = hooks[handle.id]
    hooks[handle.id] = _aside(around(getattr(told, HOOK)), outside=getattr(told, OUTSIDE))


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
    made = laid(pre_hooks_of(module)), laid(hooks_of(module))
    if not made[0] and not made[1] and not _CHANGED.get(module):
        kind = plain
        vars(module).pop(_NUMBER, None)
    else:
        first, last = (_kind(hooks) for hooks in made)
        kind = _with_hooks(plain, first, "change" if _CHANGED.get(module) else last)
        vars(module)[_NUMBER] = number_of(module)
    if type(module) is not kind:
        object.__setattr__(module, "__class__", kind)


def plain_class(module: nn.Module) -> type[nn.Module]:
    """The class that a module has without hooks of ours."""
    return vars(type(module)).get(_PLAIN, type(module))


def _kind(hooks: Hooks) -> Kind:
    inside = [hook for hook, _ in hooks if not getattr(hook, OUTSIDE)]
    if not inside:
        return ""
    return "read" if all(reads(hook) for hook in inside) else "change"


@cache
def _with_hooks(plain: type[nn.Module], first: Kind, last: Kind) -> type[nn.Module]:
    """A subclass whose calls run our hooks; the compiler keeps its graphs apart from the plain class's."""
    call = plain.__call__

    @no_type_check
    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            if first:
                show(getattr(self, _NUMBER), args[0], first, False)
            output = call(self, *args, **kwargs)
            if last:
                show(getattr(self, _NUMBER), output, last, True)
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
    for told, with_kwargs in laid(pre_hooks_of(module)):
        hook = getattr(told, HOOK)
        if with_kwargs:
            args, kwargs = hook(module, args, kwargs) or (args, kwargs)
        elif (made := hook(module, args)) is not None:
            args = made if isinstance(made, tuple) else (made,)
    _AROUND.add(id(module))
    try:
        output = call(*args, **kwargs)
    finally:
        _AROUND.discard(id(module))
    return run(module, laid(hooks_of(module)), args, kwargs, output)


# A network that was compiled by `torch.compile(network)` is inside another module.


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
            hooks = [*laid(pre_hooks_of(module)), *laid(hooks_of(module))]
            if module is not root and any(getattr(hook, OUTSIDE) for hook, _ in hooks):
                raise UnsupportedPipelineError(
                    f"{type(root).__name__} is compiled, and something at its {name} (such as PuLID, or a "
                    "ControlNet of a U-Net) is read or added by hooks that a graph does not run: do not "
                    "compile it, or compile its blocks alone (compile_repeated_blocks)"
                )


@cache
def _optimized(plain: type[nn.Module]) -> type[nn.Module]:
    @no_type_check
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
