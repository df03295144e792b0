"""Imports run one way, each foreign library enters by one door, and no room is a drawer."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("hooks", "probes", "analysis", "notebooks")
"""Each may import those before it, and itself."""
FILES = [
    path
    for room in (*ROOMS, "conf", "pocket", "tests")
    for path in sorted((ROOT / room).rglob("*.py"))
]
OURS = (*ROOMS, "conf", "pocket", "tests")

DOORS = {
    "zarr": ("hooks/blank.py",),
    "cv2": ("probes/control.py",),
    "insightface": ("probes/recognisers.py",),
    "matplotlib": ("analysis/figures/",),
    "seaborn": ("analysis/figures/",),
}
"""A library and the files of hooks, probes and analysis that may import it."""


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """(top-level package, imported name) of every import, also those inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name.split(".")[0], alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(path)} imports relatively"
            for alias in node.names:
                yield (node.module or "").split(".")[0], alias.name


def room_of(path: Path) -> str:
    return name(path).split("/")[0]


each_file = pytest.mark.parametrize("path", FILES, ids=name)


@each_file
def test_imports_run_one_way(path):
    room = room_of(path)
    if room == "tests":
        return
    allowed = {"pocket": {*ROOMS[:3], "pocket"}, "conf": set()}.get(
        room, {*ROOMS[: ROOMS.index(room) + 1]} if room in ROOMS else set()
    )
    used = {package for package, _ in imports(path)} & set(OURS)
    assert used <= allowed, f"{name(path)} imports {sorted(used - allowed)}"


@each_file
def test_foreign_libraries_enter_by_their_doors(path):
    if room_of(path) not in ROOMS[:3]:
        return
    for package, _ in imports(path):
        doors = DOORS.get(package)
        if doors is not None:
            assert name(path).startswith(doors), f"{name(path)} imports {package}"


def test_doors_are_where_the_libraries_enter():
    """So that a door that moved is noticed."""
    for library, doors in DOORS.items():
        if library == "seaborn":  # a figure may do without it
            continue
        behind = [p for p in FILES if name(p).startswith(doors)]
        assert any(package == library for p in behind for package, _ in imports(p)), library


@each_file
def test_configurations_stop_at_the_entry_modules(path):
    if room_of(path) not in ROOMS[:3]:
        return
    if any(imported == "DictConfig" for _, imported in imports(path)):
        assert "@hydra.main(" in path.read_text(), f"{name(path)} is no entry module"


@each_file
def test_every_file_opens_with_a_sentence(path):
    tree = ast.parse(path.read_text())
    if tree.body:
        said = ast.get_docstring(tree)
        assert said, f"{name(path)} does not say what it is"
        assert said.split("\n\n")[0].rstrip().endswith((".", "!", "?")), name(path)


@each_file
def test_there_is_no_drawer(path):
    """No file, module or package is called for being useful."""
    words = set(Path(name(path)).with_suffix("").parts)
    assert not words & {"utils", "util", "helpers", "misc", "common"}
    if room_of(path) in ROOMS[:3]:
        drawers = [line for line in path.read_text().splitlines() if "utils" in line]
        foreign = ("from torch.utils", "from transformers.utils", "from diffusers.utils")
        foreign += ("from insightface.utils", "from xarray", "import torch.utils")
        assert all(line.strip().startswith(foreign) for line in drawers), drawers
