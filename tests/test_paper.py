"""The study from its command to its report, on the pocket models; the report opens by itself."""

import html
import json
import re
import shlex
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from stepscope.analysis.causal.planned import planned_studies
from stepscope.analysis.commands import experiments, plan
from stepscope.analysis.paper import main
from stepscope.hooks.errors import StepscopeError
from stepscope.probes.composing import composed
from tests.shell import run_command

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
TINY = [
    "--config-name=demo",
    "experiments=[main]",
    "figures=[figure1_replacement,figure2_grid]",
    "tables=[table1_main]",
    "models.overrides=['adapter=pocket','steps=2']",
    "study.main.faces=2",
    "study.main.lines=['backbone=pocket_dev,pocket_schnell \"prompts=[portrait photo of a person]\"']",
]


class References(HTMLParser):
    """What a page would load, and where it leads."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.found += [v or "" for k, v in attrs if k in ("src", "href", "srcset", "data")]


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    """A tiny study, run once."""
    folder = tmp_path_factory.mktemp("paper") / "tiny"
    assert run_command([*TINY, f"out={folder}"], main) == 0
    return folder


def test_figures_tables_and_the_report_are_there(out: Path) -> None:
    made = {
        path.relative_to(out).as_posix() for path in out.rglob("*.*") if "runs" not in path.parts
    }
    figures = {
        f"figures/{n}.{e}" for n in ("figure1_replacement", "figure2_grid") for e in ("pdf", "png")
    }
    assert made == {
        "explore.html",
        "report.html",
        *figures,
        *(f"tables/table1_main.{e}" for e in ("csv", "md", "tex")),
    }


def test_the_report_begins_with_the_claims_and_names_what_made_each_figure(out: Path) -> None:
    page = (out / "report.html").read_text()
    words = (
        "<td>Transfer</td>",
        "<td>Early window</td>",
        "Every question of the verdicts",
        "figure1_rep",
    )
    order = [page.index(word) for word in words]
    assert order == sorted(order)
    assert re.search(r"swapped minus baseline -?\d\.\d+ \[-?\d\.\d+, -?\d\.\d+\] →", page)
    assert "the page is about them, not about FLUX.1" in page
    assert "stepscope probe experiment=main adapter=pocket steps=2 backbone=pocket_dev" in page


def test_the_command_under_a_figure_draws_it_and_leaves_the_report(out: Path, tmp_path) -> None:
    copy = tmp_path / "tiny, of 2 & more"
    shutil.copytree(out, copy)
    figure, page = copy / "figures" / "figure2_grid.png", copy / "report.html"
    before = page.stat().st_mtime_ns
    pieces = [html.unescape(one) for one in re.findall(r"<pre>(.*?)</pre>", page.read_text(), re.S)]
    command = next(one for one in pieces if "figures=[figure2_grid]" in one)
    words = shlex.split(command)
    assert words[:4] == ["stepscope", "paper", "--config-name", "demo"]
    assert {"study.main.faces=2", f"out={out}", "report=false"} <= set(words)
    figure.unlink()
    moved = [f"out='{copy}'" if word == f"out={out}" else word for word in words[2:]]
    assert run_command(moved, main) == 0
    assert figure.exists()
    assert page.stat().st_mtime_ns == before


def test_the_report_leads_to_a_page_of_samples_step_by_step(out: Path) -> None:
    assert '<a href="explore.html">' in (out / "report.html").read_text()
    page = (out / "explore.html").read_text()
    held = json.loads(page.split('id="given">')[1].split("</script>")[0])
    assert [held["saved"][f"samples?run={run}"]["kept"] for run in (0, 1)] == [[0, 1], [0, 1]]
    assert held["saved"]["view?run=1&sample=1"]["pictures"] == "decoded"
    assert "similarity" in held["saved"]["view?run=1&sample=1"]["values"]


def test_the_report_asks_the_network_for_nothing(out: Path) -> None:
    page = (out / "report.html").read_text()
    read = References()
    read.feed(page)
    assert read.tags.count("img") == 2
    pictures = [reference for reference in read.found if reference.startswith("data:")]
    assert len(pictures) == 2
    for reference in set(read.found) - set(pictures):  # within the page, or files beside it
        assert (
            f'id="{reference[1:]}"' in page
            if reference.startswith("#")
            else (out / reference).exists()
        )
    assert not {"script", "link", "iframe", "object"} & set(read.tags)
    assert not re.search(r"url\(|@import", page)


@pytest.mark.skipif(
    BROWSER is None, reason="no chromium here; the page's references are tested above"
)
def test_a_browser_draws_the_report(out: Path, tmp_path: Path) -> None:
    shot = tmp_path / "shot.png"
    words = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--window-size=900,9000",
    ]
    where = [f"--user-data-dir={tmp_path / 'browser'}", f"--screenshot={shot}"]
    page = (out / "report.html").absolute().as_uri()
    subprocess.run(
        [str(BROWSER), *words, *where, page], check=True, capture_output=True, timeout=100
    )
    with Image.open(shot) as image:
        colours = image.convert("RGB").getcolors(2**22) or []
    paper = max(colours)
    assert paper[1] == (255, 255, 255)
    assert len(colours) > 1000  # the pictures of faces, not text alone


def test_again_it_records_what_was_lost_and_otherwise_only_draws(out: Path, tmp_path, capsys):
    """And a file that was changed, not lost, is one line with the command that makes its run."""
    copy = tmp_path / "tiny"
    shutil.copytree(out, copy)
    dev, schnell = (next((copy / "runs").glob(f"pocket_{name}*")) for name in ("dev", "schnell"))

    def files(folder: Path) -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}

    whole, untouched = set(files(dev)), files(schnell)
    shutil.rmtree(dev / "x0" / "c")
    assert run_command([*TINY, f"out={copy}"], main) == 0
    assert "3 of 3 figures and tables" in capsys.readouterr().out
    assert set(files(dev)) == whole
    assert files(schnell) == untouched

    file = next(f for f in (dev / "attention_norm" / "c").rglob("*") if f.is_file())
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert run_command([*TINY, f"out={copy}"], main) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "is damaged" in line
    assert "stepscope probe backbone=pocket_dev" in line


def test_the_full_plan_counts_a_run_once(capsys) -> None:
    assert run_command(["models=full", "--dry", "experiments=[main,trajectory]"], main) == 0
    planned, _, ahead = capsys.readouterr().out.partition("models\n")
    every = planned.strip().splitlines()
    *lines, last = every[: [line.startswith("2 runs") for line in every].index(True) + 1]
    assert len(lines) == 4
    causal = every[len(lines) + 1 :]
    studies = composed(["models=full"], "paper")["causal"].values()
    assert len(causal) == 2 * sum(one["of"] == "trajectory" for one in studies)
    assert all("not planned: backbone flux_" in line for line in causal)
    assert sum("  in flux_" in line for line in lines) == 2
    told = re.fullmatch(
        r"2 runs, 432 samples: about (\S+) hours on one H200.*, and (\S+) GB .*", last
    )
    assert told
    assert float(told[1]) == pytest.approx(sum(map(minutes, lines)) / 60, abs=0.01)
    assert ahead.count("not here: accept the FLUX.1 [dev] non-commercial licence") == 1
    assert "not ready here: no backbone black-forest-labs/FLUX.1-dev;" in ahead


def minutes(line: str) -> float:
    found = re.search(r"(\S+) min", line)
    return float(found[1]) if found else 0.0


@pytest.mark.parametrize(
    ("word", "line"),
    {
        "figures=[figure4_stream]": "figures: no 'figure4_stream'; did you mean 'figure4_streams'",
        "experiments=[mian]": "experiments: no 'mian'; did you mean 'main'",
        "study.main.faces=99": "experiment 'main' needs 99 faces, models.faces has 12",
    }.items(),
)
def test_a_mistake_is_one_line(word: str, line: str, capsys) -> None:
    assert run_command([word, "--dry"], main) == 2
    assert capsys.readouterr().err.startswith(line)


def test_fewer_faces_of_one_experiment_that_save_nothing_are_said(tmp_path, capsys) -> None:
    words = ["experiments=[main,trajectory]", f"out={tmp_path}", "causal=null", "--dry"]
    assert run_command([*words, "study.main.faces=3"], main) == 0
    assert "note: study.main.faces=3 makes no run smaller" in capsys.readouterr().out
    assert run_command([*words, "faces=3"], main) == 0
    said = capsys.readouterr().out
    assert "note: study" not in said
    assert "2 runs, 18 samples: " in said


def test_what_metrics_lack_is_said_before_a_run_is_made(tmp_path, capsys) -> None:
    words = [*TINY, "models.metrics=[perceptual_distance_pocket,chance]"]
    words += [f"models.photos=[{tmp_path}/nobody]", f"out={tmp_path / 'out'}"]
    assert run_command(words, main) == 2
    assert (
        f"metrics=[chance]: photos: no file or folder '{tmp_path}/nobody'"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "out").exists()


def test_a_causal_study_is_of_the_run_of_its_steps(tmp_path) -> None:
    config = composed([], "paper")
    models, wanted = config["models"], experiments(config["study"], ["step_budget"], 1)
    made = plan(wanted, models["faces"], models["overrides"], tmp_path, dry=True)
    causal = {"transplant": config["causal"]["transplant"]}

    def steps(**changed: Any) -> list[int]:
        chosen = {"transplant": causal["transplant"] | changed}
        return [one.of.study.steps for one in planned_studies(chosen, made, models)]

    assert steps() == [8, 4]
    assert steps(steps=None) == [28, 8]  # the longest
    with pytest.raises(StepscopeError, match=r"no run of 9 steps; there are 1, 2, 4, 8, 14, 28"):
        steps(steps=[9, 4])
