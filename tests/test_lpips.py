"""LPIPS is its authors' library's and its paper's, and a run's is measured with it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stepscope.analysis.measure import measure_all
from stepscope.analysis.metrics import lpips, style_gram
from stepscope.analysis.runs import open_measured, open_recorded
from stepscope.hooks.errors import StepscopeError

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def folder(measured_pocket: Path, tmp_path_factory) -> Path:
    """Where a process that can use `lpips` leaves what it says, and a run that it measured."""
    path = tmp_path_factory.mktemp("lpips")
    shutil.copytree(measured_pocket, path / "run.zarr")
    words = [path / "run.zarr", measured_pocket, path]
    done = subprocess.run(
        [sys.executable, "-m", "tests.lpips_alone", *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{done.stderr}(`make setup` installs lpips and torchvision)"
    return path


@pytest.fixture(scope="module")
def said(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "said.json").read_text())


@pytest.mark.parametrize("name", lpips.NETWORKS)
def test_lpips_is_the_librarys(name: str, said: dict[str, Any]) -> None:
    found = said["networks"][name]
    np.testing.assert_allclose(found["ours"], found["library"], atol=1e-6)
    assert found["ours"][0] == 0
    assert min(found["ours"][1:]) > 0.01


@pytest.mark.parametrize("name", lpips.NETWORKS)
def test_lpips_is_its_papers(name: str, said: dict[str, Any]) -> None:
    found = said["networks"][name]
    np.testing.assert_allclose(found["ours"], found["definition"], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", style_gram.PUBLISHED)
def test_gram_distances_are_those_of_torchvisions_own_network(
    name: str, said: dict[str, Any]
) -> None:
    assert style_gram.PUBLISHED[name] == said["addresses"][name]
    found = said["gram"][name]
    np.testing.assert_allclose(found["ours"][1:], found["torchvision"][1:], rtol=1e-3)
    assert found["ours"][0] < 1e-6 * found["ours"][1]


def test_a_runs_pairs_and_steps_are_measured(folder: Path, said: dict[str, Any]) -> None:
    assert said["measured"] == [0, []]
    run = open_measured(folder / "run.zarr")
    pairs, steps = run["lpips"], run["lpips_step"].values
    np.testing.assert_allclose(pairs.sel(pair="many_step"), 0, atol=1e-7)  # its own images
    np.testing.assert_allclose(pairs.sel(pair="reference"), said["run"]["reference"], rtol=1e-4)
    np.testing.assert_allclose(steps, said["run"]["steps"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(steps[:, -1], 0, atol=1e-7)
    assert (steps[:, 0] > 0.01).all()
    assert json.loads(pairs.attrs["provenance"])["settings"]["model"]["network"] == "alex"


def test_weights_that_are_not_there_say_where_to_put_them(
    folder: Path, said: dict[str, Any]
) -> None:
    status, (line,) = said["missing"]
    place = folder / "checkpoints" / "alexnet-owt-7be5be79.pth"
    assert status == 2
    assert line.startswith(
        f"lpips='alex': '{place}' was not downloaded (<urlopen error no network>)"
    )
    assert line.endswith("/alexnet-owt-7be5be79.pth there")


def test_damaged_weights_say_what_to_delete(folder: Path, said: dict[str, Any]) -> None:
    status, (line,) = said["damaged"]
    place = folder / "checkpoints" / "alexnet-owt-7be5be79.pth"
    assert status == 2
    assert line.startswith(f"lpips='alex': '{place}' cannot be read (")
    assert line.endswith("): delete it, and it is downloaded again")


def test_lpips_that_is_not_installed_says_what_to_install(
    pocket_run: Path, tmp_path: Path, monkeypatch
) -> None:
    path = Path(shutil.copytree(pocket_run, tmp_path / "run.zarr"))
    monkeypatch.setitem(sys.modules, "lpips", None)  # an import of it fails
    with pytest.raises(StepscopeError, match="pip install lpips torchvision") as caught:
        measure_all([path], ["lpips"])
    assert "\n" not in str(caught.value)
    assert not (path / "analysis").exists()  # nor were the faces measured that it stands on


def test_lpips_beside_a_torchvision_of_another_build_is_one_line_too(
    pocket_run: Path, tmp_path: Path, monkeypatch
) -> None:
    def broken(name: str) -> None:
        raise RuntimeError("operator torchvision::nms does not exist\nand a trace")

    path = Path(shutil.copytree(pocket_run, tmp_path / "run.zarr"))
    monkeypatch.setattr(lpips, "import_module", broken)
    with pytest.raises(StepscopeError) as caught:
        measure_all([path], ["lpips"])
    assert str(caught.value).endswith("(operator torchvision::nms does not exist)")
    assert not (path / "analysis").exists()


def test_lpips_knows_its_networks(pocket_run: Path) -> None:
    run = open_recorded(pocket_run)
    with pytest.raises(StepscopeError, match="lpips='alexnet'; known: alex, vgg, squeeze"):
        lpips.Lpips(lpips="alexnet").settings(run)
