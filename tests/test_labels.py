"""Any label is a coordinate of its own, in one type; what nobody gave is no value."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from stepscope.hooks.errors import RunError
from stepscope.hooks.labels import check_labels, stored_seed
from stepscope.hooks.store import Run
from tests.filled import LENGTH, empty, filled, plan, row

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
WHOLE = st.integers(-(2**63), 2**63 - 1)
JSON = st.recursive(
    st.none() | st.booleans() | WHOLE | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
).filter(lambda value: isinstance(value, list | dict))
KINDS = {
    "text": TEXTS,
    "real": st.floats(allow_nan=False),
    "whole": WHOLE,
    "truth": st.booleans(),
    "json": JSON,
}
"""By the name of the label; `x_` before it is another label of the same kind."""
LABEL = st.fixed_dictionaries({}, optional=KINDS | {f"x_{n}": kind for n, kind in KINDS.items()})
CALLS = st.lists(st.lists(LABEL, min_size=1, max_size=3), min_size=1, max_size=4)


def back(name: str, stored: Any) -> Any:
    """What was given, of what is stored; None where nothing was."""
    value = stored.item() if isinstance(stored, np.generic) else stored
    if value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    if name.endswith("text") or name.endswith("real"):
        return value
    if name.endswith("truth"):
        return bool(value)
    return json.loads(value) if isinstance(value, str) else int(value)


def check(path: Path, labels: list[dict[str, Any]]) -> None:
    """Plain xarray reads what was given, each key in one type."""
    seen = xr.open_zarr(path).load()
    assert seen.sizes["sample"] == len(labels)
    for name in {name for label in labels for name in label}:
        assert name in seen.coords
        given = [label.get(name) or label.get(name, None) for label in labels]
        stored = [back(name, value) for value in seen[name].values]
        assert stored == [None if value == "" else value for value in given], name
        whole = all(name in label for label in labels)
        kind = seen[name].dtype.kind
        if name.endswith("whole"):
            assert kind == "i" if whole else kind in "fOT"
        if name.endswith("truth"):
            assert kind == ("b" if whole else "f")


@settings(max_examples=15, deadline=None)
@given(calls=CALLS)
def test_labels_are_read_back_by_plain_xarray(tmp_path_factory, calls):
    path = tmp_path_factory.mktemp("labels") / "run.zarr"
    run = empty(path)
    for labels in calls:
        run.append(labels, [row(0)] * len(labels))
    check(path, [label for labels in calls for label in labels])
    firsts = np.cumsum([0, *map(len, calls)])[:-1]
    assert xr.open_zarr(path).call.values.tolist() == np.repeat(firsts, [*map(len, calls)]).tolist()


@settings(max_examples=15, deadline=None)
@given(
    calls=st.lists(st.tuples(st.booleans(), st.lists(LABEL, min_size=1, max_size=2)), max_size=6)
)
def test_two_who_add_to_one_run_in_turn_lose_nothing(tmp_path_factory, calls):
    """Two objects, as two processes have them: neither knows what the other adds."""
    path = tmp_path_factory.mktemp("labels") / "run.zarr"
    both = empty(path), Run.open(path)
    for second, labels in calls:
        both[second].append(labels, [row(0)] * len(labels))
    check(path, [label for _, labels in calls for label in labels])
    assert Run.open(path).done.all()


@settings(max_examples=10, deadline=None)
@given(labels=st.lists(LABEL, max_size=4))
def test_a_run_that_is_made_with_its_places_has_their_labels(tmp_path_factory, labels):
    path = tmp_path_factory.mktemp("labels") / "run.zarr"
    run = Run.create(path, plan(**LENGTH), labels, {})
    for i in range(len(labels)):
        run.write(i, row(i))
    check(path, labels)


def test_a_new_label_says_what_stands_for_none(tmp_path):
    run = filled(tmp_path / "run.zarr", samples=1)
    more = {"tries": 3, "note": "hm", "kept": True, "cfg": 3.5, "grid": [1, {"a": None}]}
    run.append([more, {}], [row(1), row(2)])
    seen = xr.open_zarr(run.path).load()
    assert seen.tries.values.tolist()[1] == 3
    assert np.isnan(seen.tries.values[[0, 2]]).all()
    assert seen.note.values.tolist() == ["", "hm", ""]
    np.testing.assert_array_equal(seen.kept.values, [np.nan, 1, np.nan])
    assert seen.grid.values.tolist() == ["", '[1, {"a": null}]', ""]
    for name, said in {
        "tries": "NaN",
        "note": "empty",
        "kept": "1 or 0; NaN",
        "grid": "JSON",
    }.items():
        assert said in seen[name].attrs["description"]
        text = seen[name].dtype.kind == "T"
        assert seen[name].attrs.get("units") == (None if text else "1")
    xr.testing.assert_identical(xr.open_zarr(run.path, consolidated=False).load(), seen)


def test_an_integer_stays_one_as_long_as_each_sample_has_it(tmp_path):
    """Who has the run open when it becomes a real number still reads the integers."""
    run = empty(tmp_path / "run.zarr")
    for i in range(70):  # past one chunk
        run.append([{"tries": i, "kept": i % 2 == 0}], [row(0)])
    before = xr.open_zarr(run.path)
    assert (before.tries.dtype, before.kept.dtype) == (np.int64, bool)
    run.append([{"tries": None}], [row(0)])
    assert before.load().tries.values.tolist() == list(range(70))
    after = xr.open_zarr(run.path).load()
    np.testing.assert_array_equal(after.tries.values, [*range(70), np.nan])
    np.testing.assert_array_equal(after.kept.values, [*(1.0 - i % 2 for i in range(70)), np.nan])
    run.append([{"tries": 2**60}, {"tries": 5, "kept": False}], [row(0)] * 2)
    assert xr.open_zarr(run.path).tries.values[-2:].tolist() == [2**60, 5]


def test_integers_that_no_real_number_holds_become_text_where_one_is_missing(tmp_path):
    run = empty(tmp_path / "run.zarr")
    run.append([{"job": 2**62 + 1}], [row(0)])
    run.append([{}, {"job": 7}], [row(0)] * 2)
    assert xr.open_zarr(run.path).job.values.tolist() == [str(2**62 + 1), "", "7"]


def test_integers_become_real_numbers_and_then_text_and_old_readers_read_on(tmp_path):
    run, readers = empty(tmp_path / "run.zarr"), []
    for label in ({"job": 1}, {}, {"job": 2**62 + 1}, {"job": 3}):
        run.append([label], [row(0)])
        readers.append(xr.open_zarr(run.path))
    assert [r.job.dtype.kind for r in readers[:2]] == ["i", "f"]
    assert readers[0].job.values.tolist() == [1]
    np.testing.assert_array_equal(readers[1].job.values, [1, np.nan])
    assert readers[3].job.values.tolist() == ["1", "", str(2**62 + 1), "3"]


@pytest.mark.parametrize(
    ("first", "then", "said"),
    [
        (3, 3.5, "3.5 is a real number, and there it is integers"),
        (3, "3", "'3' is a text, and there it is integers"),
        (3, True, "True is a truth value, and there it is integers"),
        (3, [3], "[3] is JSON, and there it is integers"),
        (True, 1, "1 is an integer, and there it is true or false"),
        ("a", 1, "1 is an integer, and there it is text"),
        (3.5, 2**63 - 1, "9223372036854775807 is an integer, and there it is real numbers"),
        (3.5, math.nan, None),
        (3.5, 4, None),
        (3, None, None),
        ([1], "anything", None),
    ],
)
def test_a_value_of_another_type_is_refused_before_anything_is_written(tmp_path, first, then, said):
    path = tmp_path / "run.zarr"
    run = empty(path)
    run.append([{"cfg": first}], [row(0)])
    before = {f: f.stat().st_mtime_ns for f in path.rglob("*") if not f.name.startswith(".")}
    if said is None:
        run.check_labels([{"cfg": then}])
        run.append([{"cfg": then}], [row(1)])
        return
    for add in (run.check_labels, lambda labels: run.append(labels, [row(1)])):
        with pytest.raises(RunError) as caught:
            add([{"cfg": then}])
        assert str(caught.value) == f"label 'cfg' of {path}: {said}"
    assert before == {
        f: f.stat().st_mtime_ns for f in path.rglob("*") if not f.name.startswith(".")
    }


@pytest.mark.parametrize("name", ["length", "done", "sigma", "step", "sample", "latents", "stream",
                                  "analysis", "zarr.json", "Prompt", "cfg scale", "", "a/b", "_a",
                                  "x" * 201, "\ud800", 3])  # fmt: skip
def test_a_name_that_means_another_thing_is_refused(tmp_path, name, unchecked):
    run = filled(tmp_path / "run.zarr")
    with pytest.raises(RunError, match="label"):
        run.check_labels([{name: 1}])
    with pytest.raises(RunError, match="label"):
        Run.create(tmp_path / "other.zarr", plan(**LENGTH), [{name: 1}], {})
    assert [p.name for p in tmp_path.iterdir()] == ["run.zarr"]


@pytest.mark.parametrize(
    "value", [object(), {"a": math.nan}, {1, 2}, Path("a"), "\ud800", [np.ones(2)]]
)
def test_what_is_no_value_of_json_is_refused_in_a_line(value):
    with pytest.raises(RunError, match="label 'mine'") as caught:
        check_labels([{"mine": value}])
    assert "\n" not in str(caught.value)


def test_known_labels_have_their_types_too():
    with pytest.raises(RunError, match="'face' of a run: 3 is an integer, and there it is text"):
        check_labels([{"face": 3}])
    with pytest.raises(RunError, match=r"'seed' of a run: 1\.5 is a real number"):
        check_labels([{"seed": 1.5}])
    check_labels([{"face": None, "seed": np.int64(3), "prompt": np.str_("a")}])


@given(seed=st.integers(0, 2**64 - 1))
def test_a_seed_of_64_bits_is_its_twos_complement(seed):
    assert stored_seed(seed) == np.uint64(seed).astype(np.int64)
    assert -(2**63) <= stored_seed(seed) < 2**63


def test_seeds_of_64_bits_are_kept(tmp_path):
    run = Run.create(tmp_path / "run.zarr", plan(**LENGTH), [{"seed": 2**63}], {})
    run.append([{"seed": 2**64 - 2}, {"seed": 7}], [row(0)] * 2)
    assert xr.open_zarr(run.path).seed.values.tolist() == [-(2**63), -2, 7]
    with pytest.raises(RunError, match="'seed'"):
        run.check_labels([{"seed": 2**64}])
