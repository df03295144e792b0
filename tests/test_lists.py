"""Whoever is written into the right folder is in the list that the code reads: none is forgotten."""

import inspect
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from stepscope.analysis.figures import FIGURES
from stepscope.analysis.metrics import METRICS
from stepscope.analysis.metrics.metric import Metric
from stepscope.analysis.tables import TABLES

ROOM = Path(__file__).parents[1] / "analysis"


def modules(folder: str) -> Iterator[ModuleType]:
    for path in sorted((ROOM / folder).glob("[!_]*.py")):
        yield import_module(f"stepscope.analysis.{folder}.{path.stem}")


@pytest.mark.parametrize(
    ("members", "folder", "verb"), [(FIGURES, "figures", "draw"), (TABLES, "tables", "build")]
)
def test_every_figure_and_table_is_in_its_list(members, folder, verb):
    files = {found.__name__.rpartition(".")[2] for found in modules(folder) if hasattr(found, verb)}
    assert files == set(members)


def test_every_metric_is_in_its_list_after_those_that_it_reads():
    kinds = {
        kind
        for found in modules("metrics")
        for kind in vars(found).values()
        if inspect.isclass(kind) and issubclass(kind, Metric) and not inspect.isabstract(kind)
        if "name" in vars(kind) or not kind.__subclasses__()  # others are what metrics share
    }
    assert kinds == set(METRICS.values())
