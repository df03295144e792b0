"""The order of hooks on one module: those that change what passes run before those that only read it.

torch runs hooks as they were registered; `edit` may be entered before `record` or after it, and the record
is to show what the model went on with.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from torch.utils.hooks import RemovableHandle

Hook = TypeVar("Hook", bound=Callable[..., Any])
_READS = "_stepscope_reads"


def reading(hook: Hook) -> Hook:
    """The same function, marked as one that changes nothing."""
    setattr(hook, _READS, True)
    return hook


def reads(hook: Callable[..., Any]) -> bool:
    """Whether a hook is marked as one that changes nothing."""
    return hasattr(hook, _READS)


def before_readers(handle: RemovableHandle) -> RemovableHandle:
    """Put the hooks that only read behind the one that was just registered; they keep their order."""
    hooks: Any = handle.hooks_dict_ref()
    for key in [key for key, hook in hooks.items() if reads(hook)]:
        hooks.move_to_end(key)
    return handle
