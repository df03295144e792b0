"""The page: verdicts first, every number of a sentence in a table, every confounder read from the runs."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stepscope.analysis import report
from stepscope.analysis.bootstrap import ExpandedPercentile, JackknifeT
from stepscope.analysis.claims import claims
from stepscope.analysis.evidence import Evidence
from stepscope.analysis.tables import TABLES
from stepscope.analysis.tally import Tally
from tests.measured import FACES, MARGINS, evidence, measured_run
from tests.truths import LATE, Truth, flat

NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?")
MIXED = Truth(swapped=0.75, carried=LATE, committed=LATE, predicted=flat)


def cells(*names: str, of: Evidence) -> str:
    return "\n".join(
        str(entry) for name in names for row in TABLES[name].make(of).rows for entry in row
    )


@pytest.mark.parametrize(
    "told",
    [
        MIXED.evidence(),
        Truth().evidence(gone=["step_budget", "weak_adapter"], without=["lpips"]),
        replace(evidence(faces=FACES[:3])),
    ],
    ids=["mixed", "gaps", "few faces"],
)
def test_every_number_of_a_verdict_stands_in_the_tables(told: Evidence) -> None:
    tables = cells("table_verdicts", "table_numbers", of=told)
    known = set(NUMBER.findall(tables))
    sentences = [str(row[2]) for row in report.summary(told).rows]
    sentences += [part.sentence for claim in claims(told) for part in claim.parts]
    used = [number for text in sentences for number in NUMBER.findall(text)]
    assert len(used) > 20
    assert [number for number in used if number not in known] == []


def test_the_table_says_what_each_question_is_held_against_and_which_decide() -> None:
    found = MIXED.evidence()
    rows = TABLES["table_verdicts"].make(found).rows
    parts = [part for claim in claims(found) for part in claim.parts]
    assert [row[1] for row in rows] == [part.name for part in parts]
    assert [row[2] == "yes" for row in rows] == [part.decides for part in parts]
    for row, part in zip(rows, parts, strict=True):
        assert str(row[3]).startswith(part.verdict)
        assert row[7] == part.rule
        assert str(row[7]).startswith(("at least", "at most", "within"))
    decide = {(row[0], row[1]) for row in rows if row[2]}
    assert ("Early window", "committed") in decide
    assert ("Early window", "as predicted") not in decide


def test_the_page_begins_with_verdicts_and_both_tables(tmp_path: Path) -> None:
    page = report.write(tmp_path / "r.html", MIXED.evidence(), [], title="t").read_text()
    words = ["<td>Early window</td>", "<h2>Every question of the verdicts",
             "<h2>Confounders of the comparison", "<h2>The numbers behind",
             "<h2>How many intervals", "<h2>The runs</h2>"]  # fmt: skip
    places = [page.index(word) for word in words]
    assert places == sorted(places)
    assert "Contradicted when read as: carried by the latents, committed" in page


def test_a_title_is_text_and_no_markup(tmp_path: Path) -> None:
    page = report.write(tmp_path / "r.html", Truth().evidence(), [], title="<b>&").read_text()
    assert "<b>" not in page
    assert "<h1>&lt;b&gt;&amp;</h1>" in page


def test_the_page_counts_its_intervals_and_names_those_that_were_asked_for(tmp_path: Path) -> None:
    found = Truth().evidence()
    report.write(tmp_path / "r.html", found, [], title="t")
    table = report.intervals(found)
    rows = {str(row[0]): int(str(row[1])) for row in table.rows}
    total = rows["all, over faces"]
    assert total == sum(found.tally.counts().values()) > 50
    assert rows["expected to miss by chance, were all independent"] == round(0.05 * total)
    assert rows["pre-specified"] == 6
    assert "Early window: committed" in table.note


def test_an_interval_is_counted_once_however_often_it_is_made() -> None:
    tally, faces = Tally(), np.random.default_rng(0).normal(size=(6, 3))
    student = tally.of(JackknifeT())
    for _ in range(2):
        student(faces, lambda means: means)
    tally.of(ExpandedPercentile(resamples=99))(faces[:4], lambda means: means)  # none: too few
    assert tally.counts() == {"JackknifeT": 3}
    assert repr(student) == repr(JackknifeT())


def test_confounders_are_read_from_the_runs_and_not_from_a_text() -> None:
    whole = {str(row[0]): row for row in TABLES["table_confounders"].make(evidence()).rows}
    guided = whole["three kinds of guidance: embedded, true CFG, the adapter's"]
    assert guided[1] == "yes"
    assert "embedding 3.5" in str(guided[2])
    assert "true CFG 1, 2" in str(guided[2])
    poorer = evidence(seeds=(0,))
    poorer = replace(
        poorer, runs={k: v for k, v in poorer.runs.items() if k not in ("guidance", "step_budget")}
    )
    told = {str(row[0]): row for row in TABLES["table_confounders"].make(poorer).rows}
    assert told["three kinds of guidance: embedded, true CFG, the adapter's"][1] == "in part"
    assert told["all faces share prompts and seeds"][2:] == [
        "6 faces x 3 prompts x 1 seed; seed is fixed",
        "more than one seed",
    ]
    swap = told["weights, step count, schedule and guidance change together"]
    assert (swap[1], swap[3]) == ("no", "the baseline in 4 steps (step_budget)")
    assert "steps 28 → 4" in str(swap[2])


def test_another_adapter_under_the_swapped_backbone_is_not_controlled() -> None:
    dev, schnell = measured_run(), measured_run("pocket_schnell", 4)
    other = dict.fromkeys(schnell.attrs["weights"], "cd" * 32)
    runs = {"main": [dev, schnell.assign_attrs(weights=other)]}
    found = Evidence(runs, baseline="pocket_dev", swapped="pocket_schnell", margins=MARGINS)
    rows = {str(row[0]): row for row in TABLES["table_confounders"].make(found).rows}
    row = rows["the same cells, noise and adapter under both backbones"]
    assert row[1] == "no"
    assert "NOT the same files" in str(row[2])
    assert rows["short whole runs versus the first steps of a long run"][1] == "not measured"


def test_tables_of_no_run_at_all_say_so() -> None:
    nothing = Evidence({}, baseline="pocket_dev", swapped="pocket_schnell", margins=MARGINS)
    rows = TABLES["table_confounders"].make(nothing).rows
    assert {row[1] for row in rows} == {"not measured"}
    assert "experiment 'main' is not in this study" in cells("table_verdicts", of=nothing)
