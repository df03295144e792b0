"""Imports run one way, each foreign library enters by one door, and no room is a drawer.

A rule is one test that lists everything that breaks it.
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.conftest import LONGEST

ROOT = Path(__file__).parents[1]
ROOMS = ("hooks", "probes", "analysis", "notebooks")
"""Each may import those before it, and itself."""
OURS = (*ROOMS, "conf", "pocket", "tests")
FILES = [path for room in (*OURS, "stepscope") for path in sorted((ROOT / room).rglob("*.py"))]
"""`rglob` follows no links: the files of `stepscope/` are its own two or three."""

DOORS = {
    "zarr": ("hooks/blank.py",),
    "cv2": ("probes/control.py", "probes/adapters/pulid_encoder.py"),
    "insightface": ("probes/recognisers.py",),
    "matplotlib": ("analysis/figures/",),
    "seaborn": ("analysis/figures/",),
}
"""A library and the files of hooks, probes and analysis that may import it."""

DRAWERS = {"utils", "util", "helpers", "misc", "common"}


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def room_of(path: Path) -> str:
    return name(path).split("/")[0]


def files_of(*rooms: str) -> list[Path]:
    return [path for path in FILES if room_of(path) in rooms]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """(module, imported name) of every import, also those inside functions; dots if relative."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from ((module, alias.name) for alias in node.names)


def packages(path: Path) -> set[str]:
    """Packages that a file imports; of ours the room: `stepscope.hooks.store` is `hooks`."""
    return {
        (module.removeprefix("stepscope.") or module).split(".")[0] for module, _ in imports(path)
    }


def allowed(room: str) -> set[str]:
    """The rooms that a room may import."""
    if room in ("tests", "stepscope"):
        return {*OURS}
    if room == "pocket":
        return {*ROOMS[:3], "pocket"}
    return {*ROOMS[: ROOMS.index(room) + 1]} if room in ROOMS else set()


def test_imports_are_absolute():
    assert [name(p) for p in FILES if any(m.startswith(".") for m, _ in imports(p))] == []


def test_imports_run_one_way():
    wrong = {name(p): (packages(p) & {*OURS}) - allowed(room_of(p)) for p in FILES}
    assert {file: used for file, used in wrong.items() if used} == {}


def test_foreign_libraries_enter_by_their_doors():
    wrong = [
        f"{name(path)} imports {library}"
        for path in files_of(*ROOMS[:3])
        for library in packages(path) & {*DOORS}
        if not name(path).startswith(DOORS[library])
    ]
    assert wrong == []


def test_doors_are_where_the_libraries_enter():
    """So that a door that moved is noticed."""
    unused = [
        f"{door} imports no {library}"
        for library, doors in DOORS.items()
        if library != "seaborn"  # a figure may do without it
        for door in doors
        if not any(library in packages(p) for p in FILES if name(p).startswith(door))
    ]
    assert unused == []


def test_configurations_stop_at_the_entry_modules():
    readers = {p for p in files_of(*ROOMS[:3]) if "DictConfig" in {n for _, n in imports(p)}}
    assert [name(p) for p in readers if "@hydra.main(" not in p.read_text()] == []


def test_every_file_opens_with_a_sentence():
    said = {name(path): ast.get_docstring(tree(path)) or "" for path in FILES if tree(path).body}
    first = {file: text.split("\n\n")[0].rstrip() for file, text in said.items()}
    assert [file for file, text in first.items() if not text.endswith((".", "!", "?"))] == []


def says(call: ast.Call) -> str:
    """The last name of what is called."""
    return getattr(call.func, "attr", None) or getattr(call.func, "id", "")


def can_fail(path: Path, function: ast.FunctionDef, seen: frozenset[str] = frozenset()) -> bool:
    """It asserts, or expects an error, itself or in a function of its file that it calls."""
    within = [*ast.walk(function)]
    calls = {says(node) for node in within if isinstance(node, ast.Call)}
    if any(isinstance(node, ast.Assert) for node in within):
        return True
    if any("assert" in name or name in ("raises", "fail") for name in calls):
        return True
    own = [f for f in tree(path).body if isinstance(f, ast.FunctionDef) and f.name in calls - seen]
    return any(can_fail(path, f, seen | calls) for f in own)


def test_every_test_can_fail():
    tests = [
        (path, node)
        for path in files_of("tests")
        for node in tree(path).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]
    assert [f"{name(p)}::{test.name}" for p, test in tests if not can_fail(p, test)] == []


def test_there_is_no_drawer():
    """No file or folder of ours is called for being useful; other people's may be."""
    assert [name(p) for p in FILES if {*Path(name(p)).with_suffix("").parts} & DRAWERS] == []


def test_the_files_that_are_begun_first_exist():
    assert {*LONGEST} <= {path.stem for path in files_of("tests")}
