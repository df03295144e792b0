"""What one writes without stepscope: hooks for norms, and for whole tensors."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch

from stepscope.hooks import kernel
from tests.bench.full_pipeline import Bench


@contextmanager
def hooked(modules: Sequence[Any], hook: Callable[..., None]) -> Iterator[None]:
    """A hook on each of the modules."""
    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def plain_hooks(bench: Bench) -> Iterator[None]:
    """Norms by hooks that keep them on the device: what one writes oneself."""
    kept: list[torch.Tensor] = []

    def hook(module: Any, args: Any, output: Any) -> None:
        for part in output if isinstance(output, tuple) else (output,):
            kept.append(torch.linalg.vector_norm(part, dtype=torch.float32))

    blocks: list[Any] = [
        *bench.transformer.transformer_blocks,
        *bench.transformer.single_transformer_blocks,
    ]
    with hooked([m for b in blocks for m in (b, b.attn)], hook):
        yield


@contextmanager
def copies(bench: Bench) -> Iterator[None]:
    """The tensors of `full` by hooks that copy them to the host at once, and keep them there."""
    kept: list[Any] = []

    def hook(module: Any, args: Any, output: Any) -> None:
        kept.extend(p.cpu() for p in (output if isinstance(output, tuple) else (output,)))

    names = [site.rsplit(".", 2)[0] for site in bench.full.sites]
    lists = {
        "double": bench.transformer.transformer_blocks,
        "single": bench.transformer.single_transformer_blocks,
    }
    modules: list[Any] = [
        lists[kind][int(index)].attn for kind, index in (n.split(".") for n in names)
    ]
    with hooked(modules, hook):
        yield


@contextmanager
def without_kernel(inside: AbstractContextManager[Any]) -> Iterator[None]:
    usable, kernel.usable = kernel.usable, lambda device: False
    try:
        with inside:
            yield
    finally:
        kernel.usable = usable
