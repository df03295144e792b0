"""The public verb: `with edit(pipe, Edit("double.*.adapter", Scale(0.0))): pipe(...)`."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from stepscope.hooks.edits.editing import Editing
from stepscope.hooks.edits.opened import opened
from stepscope.hooks.edits.value import Edit
from stepscope.hooks.errors import EditError, StepscopeWarning
from stepscope.hooks.support import check_edit


@contextmanager
def edit(pipe: Any, edits: Edit | Sequence[Edit]) -> Iterator[Editing]:
    """Change values of every call of a diffusers pipeline, for as long as the `with` lasts.

    pipe: a pipeline that `record` accepts. edits: applied in their order; without edits, nothing changes.

    `record` and `edit` can be combined in either order: the run then holds the edited values, and lists
    the edits in its attribute `edits` and in each sample's coordinate `edits`. A residual stream is edited
    before an adapter's residual is added to it.

    Raises UnsupportedPipelineError for a pipeline that `record` refuses, and EditError for an edit that
    would change nothing or does not fit: here, when a call begins, in its first pass, or in the last step
    of the edit's window if the error cannot be known earlier. After any exception the hooks are removed.
    Warns (StepscopeWarning) if nothing was edited.
    """
    check_edit(pipe)
    values = [edits] if isinstance(edits, Edit) else list(edits)
    for value in values:
        if not isinstance(value, Edit):
            raise EditError(f"{value!r} is no edit: Edit('double.*.adapter', Scale(0.0))")
    with ExitStack() as hooks:
        editing = Editing(pipe, values)
        editing.attach(hooks)
        hooks.enter_context(opened(editing))
        yield editing
        if not editing.calls:
            warnings.warn(
                f"nothing was edited: {type(pipe).__name__} was not called within the `with`",
                StepscopeWarning,
                stacklevel=3,
            )
