"""Tables hold the numbers that the statistics give, in three formats that other programs read."""

import csv
import io
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from stepscope.analysis.cells import average
from stepscope.analysis.compare import compare
from stepscope.analysis.evidence import Evidence
from stepscope.analysis.number import Number
from stepscope.analysis.tables import TABLES
from stepscope.analysis.tables.table import LATEX, NEEDS, Table
from stepscope.analysis.tables.table_guidance import over_seeds
from tests.measured import FACES, evidence, measured_run

WHOLE = evidence()
ALONE = evidence(faces=FACES[:1])


def records(table: Table) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(table.csv())))


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("runs", [WHOLE, ALONE], ids=["whole", "one face"])
def test_the_three_formats_agree(name: str, runs: Evidence) -> None:
    table = TABLES[name].make(runs)
    lines = [line for line in table.markdown().splitlines() if line.startswith("|")]
    assert len(lines) == len(table.rows) + 2 == len(records(table)) + 2
    assert all(line.count("|") == len(table.columns) + 1 for line in lines)
    body = [line for line in table.latex().splitlines() if line.endswith(r"\\")]
    assert len(body) == len(table.rows) + 1
    assert all(line.count(" & ") == len(table.columns) - 1 for line in body)


def test_the_main_table_holds_the_estimates_and_intervals_of_the_statistics() -> None:
    dev, schnell = (WHOLE.endpoint(run) for run in WHOLE.runs["main"])
    interval = WHOLE.interval(dev)
    row = next(
        r for r in records(TABLES["table1_main"].make(WHOLE)) if r["quantity"] == "ArcFace, pocket"
    )
    mean, effect = average(dev, interval), compare(dev, schnell, interval)
    assert float(row["pocket dev, 28 steps"]) == pytest.approx(float(mean["mean"]), rel=1e-5)
    assert float(row["pocket dev, 28 steps low"]) == pytest.approx(float(mean["low"]), rel=1e-5)
    assert float(row["difference"]) == pytest.approx(float(effect["effect"]), rel=1e-4)
    assert float(row["difference high"]) == pytest.approx(float(effect["high"]), rel=1e-4)
    assert int(row["pairs"]) == int(effect["pairs"])


def test_the_conditioning_recogniser_is_marked_and_never_the_judge() -> None:
    names = [row[0] for row in TABLES["table1_main"].make(WHOLE).rows]
    assert "ArcFace, identity (conditions)" in names
    assert WHOLE.recogniser(WHOLE.runs["main"][0]) == "pocket"


def test_seconds_stand_on_calls_and_say_where_one_is_too_few() -> None:
    row = next(r for r in TABLES["table1_main"].make(WHOLE).rows if r[0] == "seconds an image")
    told = re.fullmatch(
        r"3 \+ 3 calls, worth (\S+) \+ (\S+), without 1 \+ 1 cold, 1 \+ 1 of another size",
        str(row[5]),
    )  # of 8 samples, the last of 4
    assert told
    assert all(1 <= float(worth) <= 3 for worth in told.groups())
    slow, fast = (
        np.unique((run["latency_seconds"].sel(part="total") / run["batch_size"])[8:-4])
        for run in WHOLE.runs["main"]
    )
    assert isinstance(row[3], Number)
    assert row[3].value == pytest.approx(slow.mean() / fast.mean())
    assert row[3].low < row[3].value < row[3].high
    alone = next(r for r in TABLES["table1_main"].make(ALONE).rows if r[0] == "seconds an image")
    assert str(alone[1]).endswith(" [one call: too few to quote]")
    assert str(alone[3]).endswith("× [one call: too few to quote]")


def test_the_spread_over_seeds_leaves_faces_and_prompts_out() -> None:
    run = measured_run(missing=0, prompts=("a", "b"))
    values = WHOLE.endpoint(run)
    shift = {"a": 0.0, "b": 5.0}
    known = values.copy(
        data=[
            shift[p] + 0.1 * s
            for p, s in zip(run["prompt"].values, run["seed"].values, strict=True)
        ]
    )
    assert over_seeds(known) == pytest.approx(0.1 / np.sqrt(2))


def test_what_is_not_measured_says_so_and_how_to_get_it() -> None:
    table = TABLES["table1_main"].make(evidence(lpips=False))
    row = next(r for r in table.rows if r[0] == "LPIPS")
    assert row[1:4] == ["not measured"] * 3
    assert "metrics=[lpips,dinov2,chance]" in table.note


def test_a_perceptual_distance_stands_in_the_row_of_lpips_under_its_own_name() -> None:
    runs = evidence(lpips=False).runs["main"]
    pairs = xr.DataArray(np.full((runs[0].sizes["sample"], 2), 0.2), dims=("sample", "pair"))
    measured = [run.assign(perceptual_distance_pocket=pairs) for run in runs]
    own = Evidence({"main": measured}, baseline="pocket_dev", swapped="pocket_schnell")
    names = [row[0] for row in TABLES["table1_main"].make(own).rows]
    assert "perceptual distance of the pocket recogniser, reference" in names
    assert "LPIPS" not in names


def test_pairs_needed_come_with_the_range_that_the_pilot_leaves() -> None:
    row = next(r for r in TABLES["table1_main"].make(WHOLE).rows if r[0] == "ArcFace, pocket")
    told = re.fullmatch(r"(\d+) \[(\d+), (\d+)\]", str(row[6]))
    assert told
    assert int(told[2]) < int(told[1]) < int(told[3])


def test_one_face_has_no_interval_and_no_face_no_number() -> None:
    assert str(Number(0.5)) == "0.500 [–]"
    assert str(Number(np.nan)) == "–"
    rows = records(TABLES["table1_main"].make(ALONE))
    similarity = next(r for r in rows if r["quantity"] == "ArcFace, pocket")
    assert similarity["pocket dev, 28 steps low"] == ""


def test_a_prompt_with_signs_of_its_own_leaves_a_table_whole() -> None:
    prompt = "[50% off] a_b & {c} \\d ~ ^ | #1 <$>"
    table = Table(["prompt", "α"], [[prompt, Number(0.5, 0.4, 0.6)]], note="two\nlines")
    (row,) = [line for line in table.markdown().splitlines() if "50" in line]
    assert row.count("|") - row.count(r"\|") == 3
    lines = table.latex().splitlines()
    assert lines[:2] == [f"% {NEEDS}", "% two lines"]
    row = next(line for line in lines if "50" in line)
    assert row == (
        r"{}[50\% off] a\_b \& \{c\} \textbackslash{}d \textasciitilde{} \textasciicircum{} $|$ "
        r"\#1 $<$\$$>$ & 0.500 [0.400, 0.600] \\"
    )
    assert r"$\alpha$" in lines[4]


def test_a_minus_is_typeset_as_one_and_a_hyphen_as_one() -> None:
    table = Table(["prompt", "d"], [["schnell-4 at -2 and 10-20", Number(-0.5, -0.6, 0.1)]])
    assert "schnell-4 at $-$2 and 10-20 & $-$0.500 [$-$0.600, 0.100]" in table.latex()


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("runs", [WHOLE, ALONE], ids=["whole", "one face"])
def test_latex_holds_nothing_that_pdflatex_does_not_typeset(name: str, runs: Evidence) -> None:
    body = [line for line in TABLES[name].make(runs).latex().splitlines() if line[0] != "%"]
    text = "\n".join(body)
    assert text.isascii()
    assert not re.search(r"(?<!\\)[%#_^~]", text)  # each is escaped
    assert text.count("{") == text.count("}")
    assert len(re.findall(r"(?<!\\)\$", text)) % 2 == 0


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_every_table_and_sign_is_compiled(tmp_path: Path) -> None:
    signs = " ".join(map(chr, range(32, 127))) + "éüñç“”’…±°½" + "".join(LATEX)
    tables = [TABLES[name].make(WHOLE) for name in TABLES] + [Table(["a"], [[signs]])]
    paths = [table.save(tmp_path, f"t{k}")[2] for k, table in enumerate(tables)]
    read = "\n".join(rf"\input{{{path.name}}}\par" for path in paths)
    page = (
        rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{read}\end{{document}}"
    )
    (tmp_path / "page.tex").write_text(page)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, [s for s in done.stdout.splitlines() if s.startswith("!")]
    assert "Missing character" not in done.stdout
