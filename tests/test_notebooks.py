"""Every notebook runs from its first cell to its last on the pocket models, wherever it lies."""

import re
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

BOOKS = sorted(Path("notebooks").glob("*.ipynb"))
FOUR = ["early_window", "streams_and_blocks", "trajectory", "your_pipeline"]


def test_the_list_is_the_four() -> None:
    assert [book.stem for book in BOOKS] == FOUR


@pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.stem)
def test_a_notebook_runs_and_leaves_nothing(book: Path, tmp_path: Path) -> None:
    before = set(Path("notebooks").rglob("*"))
    notebook = nbformat.read(shutil.copy(book, tmp_path), as_version=4)
    where = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=240, kernel_name="python3", resources=where).execute()
    assert [path.name for path in tmp_path.iterdir()] == [book.name]
    assert set(Path("notebooks").rglob("*")) == before


@pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.stem)
def test_what_is_stored_is_executed_in_order_without_a_warning_or_a_place(book: Path) -> None:
    cells = [c for c in nbformat.read(book, as_version=4).cells if c.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert not re.search(r"/(home|root|Users|work|tmp)/", str(outputs))
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 2
    assert book.stat().st_size < 600_000
    assert not [cell for cell in cells if re.search(r"^\s*(def|class) ", cell.source, re.MULTILINE)]
