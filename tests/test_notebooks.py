"""Every notebook runs from its first cell to its last on the pocket models, wherever it lies."""

import io
import re
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell
from matplotlib import pyplot as plt
from nbclient import NotebookClient
from traitlets.config import Config

BOOKS = sorted(Path("notebooks").absolute().glob("*.ipynb"))
LONG = ("early_window", "cause")
"""Notebooks that take a minute; what they show is tested elsewhere too."""
each_book = pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.stem)


def cells(book: Path) -> list[Any]:
    return [cell for cell in nbformat.read(book, as_version=4).cells if cell.cell_type == "code"]


@pytest.fixture
def elsewhere(tmp_path, monkeypatch) -> Iterator[Path]:
    """An empty folder to run in; nothing is left there, or beside the notebooks."""
    before = set(BOOKS[0].parent.rglob("*"))
    (tmp_path / "here").mkdir()
    (tmp_path / "temporary").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    yield tmp_path / "here"
    assert list((tmp_path / "here").iterdir()) == []
    assert set(BOOKS[0].parent.rglob("*")) == before


@pytest.fixture
def shell(tmp_path, monkeypatch) -> Iterator[InteractiveShell]:
    """An IPython of its own in this process, where the libraries are loaded already."""
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    settings = Config({"HistoryManager": {"enabled": False}})
    found = InteractiveShell(config=settings, ipython_dir=str(tmp_path / "ipython"), user_ns={})
    with warnings.catch_warnings(), plt.rc_context():
        yield found
    found.restore_sys_module_state()
    plt.close("all")


@pytest.mark.parametrize(
    "book",
    [pytest.param(b, id=b.stem, marks=[pytest.mark.slow] * (b.stem in LONG)) for b in BOOKS],
)
def test_a_notebook_runs_and_leaves_nothing(book, shell, elsewhere):
    for cell in cells(book):
        assert shell.run_cell(cell.source).success
        for number in plt.get_fignums():  # drawn as a notebook draws them, when a cell has ended
            plt.figure(number).savefig(io.BytesIO(), bbox_inches="tight")
        plt.close("all")


@pytest.mark.slow
@each_book
def test_a_notebook_runs_in_a_kernel_of_its_own(book, elsewhere, tmp_path):
    """So that it loads all that it needs."""
    notebook = nbformat.read(shutil.copy(book, tmp_path), as_version=4)
    where = {"metadata": {"path": str(elsewhere)}}
    NotebookClient(notebook, timeout=240, kernel_name="python3", resources=where).execute()
    assert notebook.cells[-1].get("execution_count", 1)


@each_book
def test_what_is_stored_is_executed_in_order_without_a_warning_or_a_place(book):
    found = cells(book)
    assert [cell.execution_count for cell in found] == list(range(1, len(found) + 1))
    outputs = [output for cell in found for output in cell.outputs]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert not re.search(r"/(home|root|Users|work|tmp)/", str(outputs))
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 2
    assert book.stat().st_size < 600_000
    assert not [cell for cell in found if re.search(r"^\s*(def|class) ", cell.source, re.MULTILINE)]
