"""Which adapters transfer: pairs of runs, the estimates of the statistics, and the rule's own verdict."""

import csv
import io
from dataclasses import replace

import pytest
import xarray as xr

from stepscope.analysis.compare import compare
from stepscope.analysis.evidence import Evidence
from stepscope.analysis.lookup import MissingEvidenceError
from stepscope.analysis.tables import TABLES, table_adapters
from stepscope.analysis.verdict import Verdict
from tests.measured import evidence, pictured_run

WHOLE = evidence()


def rows(made: Evidence) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(TABLES["table_adapters"].make(made).csv())))


def named(run: xr.Dataset, backbone: str, adapter: str) -> xr.Dataset:
    """The run as if it were of another backbone and adapter."""
    told = {**run.attrs["configuration"], "adapter": {"name": adapter}}
    told["backbone"] = {**dict(told["backbone"]), "name": backbone}
    return run.assign_attrs(configuration=told)


def test_the_difference_and_its_verdict_are_those_of_the_main_comparison() -> None:
    dev, schnell = (WHOLE.endpoint(run) for run in WHOLE.runs["main"])
    found = compare(dev, schnell, WHOLE.interval(dev))
    (table,) = [r for r in table_adapters.build(WHOLE).rows if r[1] == "ArcFace, pocket"][:1]
    change = table[table_adapters.COLUMNS.index("difference")]
    assert change.value == pytest.approx(float(found["effect"]))  # pyright: ignore[reportAttributeAccessIssue]
    assert WHOLE.margins is not None
    bound = -WHOLE.margins.transfer_margin
    low, high = float(found["low"]), float(found["high"])
    wanted = Verdict.SUPPORTED if low >= bound else Verdict.UNDECIDED
    assert table[-1] == str(Verdict.CONTRADICTED if high < bound else wanted)


def test_adapters_of_one_experiment_have_a_row_each_and_each_its_own_pair() -> None:
    long, short = WHOLE.runs["main"]
    runs = [
        named(run, backbone, adapter)
        for adapter in ("a", "b")
        for run, backbone in ((long, "base"), (short, "few"))
    ]
    found = rows(replace(WHOLE, runs={"adapters": runs}))
    assert [row["adapter"] for row in found] == ["a", "b"]
    assert {row["on its base"] for row in found} == {f"base, {long.sizes['step']} steps"}
    assert {row["on the few-step model"] for row in found} == {f"few, {short.sizes['step']} steps"}


def test_likeness_to_a_picture_is_compared_where_it_was_measured() -> None:
    run = pictured_run(steps=4)
    likeness = xr.zeros_like(run["reference_dinov2"])
    base = named(run, "base", "style").assign(reference_look_pocket=likeness + 0.5)
    few = named(run, "few", "style").assign(reference_look_pocket=likeness + 0.25)
    (row,) = rows(replace(WHOLE, runs={"style_adapter": [base, few]}))
    assert row["measure"] == "reference look pocket"
    assert float(row["difference"]) == pytest.approx(-0.25)


def test_an_adapter_on_one_backbone_alone_is_no_transfer() -> None:
    runs = {"style_adapter": WHOLE.runs["style_adapter"]}
    with pytest.raises(MissingEvidenceError, match="no adapter ran on two backbones"):
        table_adapters.build(replace(WHOLE, runs=runs))
