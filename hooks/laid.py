"""Our hooks among those of a module, and how they are run one after the other."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

HOOK, OUTSIDE = "_stepscope_hook", "_stepscope_outside"
"""Marks of what torch holds for a hook of ours: the hook, and whether it never runs inside a graph."""

Hooks = list[tuple[Callable[..., Any], bool]]


def pre_hooks_of(module: nn.Module) -> tuple[Mapping[int, Any], Mapping[int, bool]]:
    """Those before its call, and which of them take named arguments."""
    return module._forward_pre_hooks, module._forward_pre_hooks_with_kwargs


def hooks_of(module: nn.Module) -> tuple[Mapping[int, Any], Mapping[int, bool]]:
    """Those after its call, and which of them take named arguments."""
    return module._forward_hooks, module._forward_hooks_with_kwargs


def laid(of_module: tuple[Mapping[int, Any], Mapping[int, bool]]) -> Hooks:
    """Our hooks among a module's, in order, and whether each takes named arguments."""
    hooks, with_kwargs = of_module
    return [(hook, key in with_kwargs) for key, hook in hooks.items() if hasattr(hook, HOOK)]


def run(module: nn.Module, hooks: Hooks, args: Any, kwargs: Any, output: Any) -> Any:
    """Run hooks on what a module returned; what a hook returns takes its place, as torch has it."""
    for told, with_kwargs in hooks:
        hook = getattr(told, HOOK)
        given = (args, kwargs) if with_kwargs else (args,)
        made = hook(module, *given, output)
        output = output if made is None else made
    return output


def unwrapped(network: Any) -> Any:
    """The network itself, of one that `torch.compile` wrapped."""
    return network._orig_mod if isinstance(network, torch._dynamo.OptimizedModule) else network
