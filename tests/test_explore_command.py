"""The explorer's command: a page of its own, mistakes in one line, and no torch to read a run."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stepscope.analysis.explore.command import main
from stepscope.analysis.explore.save import save
from stepscope.analysis.explore.source import Source
from stepscope.analysis.explore.view import view


def test_a_saved_page_is_whole_and_small(measured_pocket: Path, tmp_path: Path) -> None:
    source = Source(str(measured_pocket))
    saved = save([source], tmp_path / "page.html", [[1]])
    assert saved.samples == ((1, 1),)
    text = saved.path.read_text()
    held = json.loads(text.split('id="given">')[1].split("</script>")[0])["saved"]
    assert held["view?run=0&sample=1"]["values"].keys() == view(source, 1)["values"].keys()
    assert held["frame?run=0&sample=1&step=3"].startswith("data:image/")
    assert len(text) < 8e6


def test_a_full_page_takes_samples_of_each_run_in_turn(pocket_run: Path, tmp_path: Path) -> None:
    sources = [Source(str(pocket_run))] * 2
    saved = save(sources, tmp_path / "page.html", most=1)
    assert saved.samples == ((1, 2), (0, 2))
    assert "--samples" in str(saved)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["no.zarr"], "no run 'no.zarr'"),
        (["."], "is not a run, it has no zarr.json"),
        (["RUN", "port=9"], "'port=9' is no run: python -m analysis.explore RUN --port 9"),
        (["RUN", "sample=[0,1]"], "RUN --samples 0,1"),
        (["runs=[a.zarr,b c.zarr]"], "analysis.explore a.zarr 'b c.zarr'"),
        (["RUN", "RUN", "RUN"], "3 runs: one or two can be shown"),
        (["RUN", "--samples", "1"], "--samples is of --save"),
        (["RUN", "--save", "OUT", "--samples", "1,x"], "--samples 1,x: numbers with commas"),
    ],
)
def test_a_mistake_is_one_line(
    words: list[str], line: str, pocket_run: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([str(pocket_run) if word == "RUN" else word for word in words]) == 2
    said = capsys.readouterr().err
    assert line in said
    assert said.count("\n") == 1


@pytest.mark.skipif(
    shutil.which("tsc") is None, reason="npm install -g typescript, to check its types"
)
def test_the_types_in_the_page_s_script_hold() -> None:
    words = "--checkJs --allowJs --noEmit --strict --target es2022 --lib es2022,dom,dom.iterable"
    files = sorted(map(str, Path("analysis/explore/page").glob("*.js")))
    done = subprocess.run(
        ["tsc", *words.split(), *files], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_reading_needs_neither_torch_nor_diffusers(pocket_run: Path, tmp_path: Path) -> None:
    words = [str(pocket_run), "--save", str(tmp_path / "page.html")]
    code = (
        "import sys; from stepscope.analysis.explore.command import main; "
        f"import stepscope.analysis.explore.serve; assert main({words}) == 0; "
        "print({'torch', 'diffusers', 'hydra', 'matplotlib'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1:] == ["set()"], done.stderr
