"""What is installed is one package with its own dependencies: beside a user's folders, from any folder."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from stepscope.__main__ import COMMANDS, usage

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
BY_EXTRA = {"hooks": "recording", "probes": "evidence", "analysis": "evidence", "stepscope": None}
INDIRECT = {"accelerate", "peft"}
"""Declared and imported by no file of ours: diffusers loads models with it."""
OWN_EXTRA = {"lpips", "torchvision"}
OF_TORCH = {"triton"}
"""Comes with torch's builds for a card; without it the plain path runs."""


def declared(extra: str | None) -> set[str]:
    """Distributions that an installation with that extra has, by name."""
    more = PROJECT["optional-dependencies"].get(extra, [])
    found = {re.split(r"[^\w-]", words)[0].lower() for words in [*PROJECT["dependencies"], *more]}
    for inner in re.findall(r"stepscope\[([\w,]+)\]", " ".join(more)):
        found |= set().union(*(declared(name) for name in inner.split(",")))
    return found - {"stepscope"}


def imported(room: str) -> set[str]:
    """Distributions that the files of a room import."""
    names = set()
    for path in (ROOT / room).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names.add(node.module.split(".")[0])
    foreign = names - {*sys.stdlib_module_names, "stepscope"} - OWN_EXTRA - OF_TORCH
    by_module = packages_distributions()
    return {by_module.get(name, [name])[0].lower() for name in foreign}


def same(names: set[str]) -> set[str]:
    """Names as the package index compares them (PEP 503)."""
    return {re.sub(r"[-_.]+", "-", name) for name in names}


@pytest.mark.parametrize("room", BY_EXTRA)
def test_what_a_room_imports_is_declared(room):
    assert same(imported(room)) - same(declared(BY_EXTRA[room])) == set()


def test_what_is_declared_is_imported():
    used = set().union(*(imported(room) for room in BY_EXTRA))
    assert same(declared("evidence")) - same(used) == INDIRECT


def test_a_run_is_read_and_help_is_given_without_torch(measured_pocket):
    code = (
        "import sys; from stepscope import open_run; from stepscope.__main__ import main\n"
        f"run = open_run({str(measured_pocket)!r}); assert run.similarity.notnull().all()\n"
        "assert main(['--help']) == 0 and all(main([name, '-h']) == 0 for name in sys.argv[1:])\n"
        "print(sorted({'torch', 'diffusers', 'transformers'} & {*sys.modules}))"
    )
    named = [name for name, command in COMMANDS.items() if command.config]
    answer = subprocess.run(
        [sys.executable, "-c", code, *named], capture_output=True, text=True, check=True
    )
    assert answer.stdout.splitlines()[-1] == "[]"
    assert usage().splitlines()[0] in answer.stdout


def test_the_packages_at_the_top_of_a_checkout_are_those_of_stepscope_in_any_order(tmp_path):
    code = (
        "import hooks.store, probes, conf; from hooks.errors import RunError\n"
        "import stepscope.hooks.errors, stepscope.probes, stepscope.conf, analysis, stepscope.analysis\n"
        "print(RunError is stepscope.hooks.errors.RunError, hooks is stepscope.hooks, probes is "
        "stepscope.probes, conf is stepscope.conf, analysis is stepscope.analysis)"
    )
    (tmp_path / "hooks").mkdir()
    (tmp_path / "hooks" / "__init__.py").write_text("mine = True")
    other = "import hooks, stepscope.hooks; print(hooks.mine, hooks is not stepscope.hooks)"
    for text, folder in ((code, ROOT), (other, tmp_path)):
        answer = subprocess.run(
            [sys.executable, "-c", text],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert set(answer.stdout.split()) == {"True"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The Python of an environment that has the wheel, and torch and the rest of its own."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    source = folder / "source"  # a build leaves its own folder beside the source
    others = shutil.ignore_patterns(
        ".*", "tests", "outputs", "runs", "notebooks", "figures", "logs"
    )
    shutil.copytree(ROOT, source, symlinks=True, ignore=others)
    wheel = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, source]
    subprocess.run(wheel, check=True, capture_output=True)
    venv.create(folder / "env", symlinks=True)
    (site,) = (folder / "env").glob("lib/python*/site-packages")
    (made,) = folder.glob("stepscope-*.whl")
    into = [*pip, "install", "--no-deps", "--no-compile", "--target", site, made]
    subprocess.run(into, check=True, capture_output=True)
    there = [path for path in sys.path if path.endswith("site-packages")]
    (site / "there.pth").write_text("\n".join(there))  # what an environment has before
    return folder / "env" / "bin" / "python"


def test_a_wheel_works_beside_folders_of_the_same_names(installed, tmp_path):
    for name in ("hooks", "probes", "analysis", "conf", "pocket"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('of the user')")
    out = tmp_path / "run.zarr"
    words = ["backbone=pocket_schnell", "adapter=pocket", "faces=[pocket/portraits/00_0.png]"]
    words += ["prompts=[portrait of a person]", "steps=1", f"out={out}"]

    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def python(*words: str) -> str:
        command = [installed, *words]
        answer = subprocess.run(command, cwd=tmp_path, env=alone, capture_output=True, text=True)
        assert answer.returncode == 0, answer.stderr
        return answer.stdout

    file = python("-c", "import stepscope.hooks as h; print(h.__file__)")
    assert str(installed.parents[1]) in file
    python("-m", "stepscope", "probe", *words)
    assert "latents" in {path.name for path in out.iterdir()}
