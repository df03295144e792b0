"""Edits: values at the sites that are recorded, changed while the model runs."""

from stepscope.hooks.edits.operation import At, Operation
from stepscope.hooks.edits.operations import Add, Mean, Scale, Swap
from stepscope.hooks.edits.value import Edit
from stepscope.hooks.edits.verb import edit

__all__ = ["Add", "At", "Edit", "Mean", "Operation", "Scale", "Swap", "edit"]
