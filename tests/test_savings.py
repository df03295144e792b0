"""Seconds saved by windows of the adapter, against the whole run, on runs with known answers."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from stepscope.analysis.calls import Calls, saved
from stepscope.analysis.causal.savings import fastest, savings
from stepscope.analysis.evidence import Evidence
from stepscope.analysis.figures import FIGURES
from stepscope.analysis.lookup import MissingEvidenceError
from tests.measured import MARGINS, measured_run

STEPS = 28


def made(losses: dict[int, float], *, faces: int = 6, missing: float = 0.0) -> Evidence:
    """A study of windows of first steps, each of which loses exactly so much."""
    runs = [
        measured_run(
            window=(0, end), loses=lost, missing=missing, faces=[f"f{i}" for i in range(faces)]
        )
        for end, lost in losses.items()
    ]
    return Evidence({"adapter_window": runs}, "pocket_dev", "pocket_schnell", margins=MARGINS)


def test_what_a_window_saves_and_loses_is_what_was_put_in():
    evidence = made({4: 0.2, 14: 0.03, STEPS: 0.0})
    found = savings(evidence, "pocket_dev")
    assert [one.end for one in found.windows] == [14, 4]
    np.testing.assert_allclose([float(one.lost["mean"]) for one in found.windows], [0.03, 0.2])
    whole = evidence.runs["adapter_window"][-1]
    for one in found.windows:
        seconds = whole["latency_seconds"].sel(part="adapter") / whole["batch_size"]
        warm = seconds.values[8:32]  # without the first call, and the last, which is smaller
        expected = (1 - one.end / STEPS) * np.mean(np.unique(warm))
        assert float(one.seconds["mean"]) == pytest.approx(expected)
        told = (1 - one.end / STEPS) * float(np.median(seconds))
        assert found.expected(one) == pytest.approx(told)
    best = fastest(found, 0.05)
    assert best is not None
    assert best.end == 14
    assert fastest(found, 0.01) is None
    assert "in the first 14 of 28 steps" in FIGURES["figure_window_seconds"].words(evidence)
    strict = replace(evidence, margins=replace(MARGINS, transfer_margin=0.01))
    assert "no window surely loses at most 0.01" in FIGURES["figure_window_seconds"].words(strict)


def test_an_image_without_a_face_is_a_loss():
    evidence = made({14: 0.0, STEPS: 0.0})
    run = evidence.runs["adapter_window"][0]
    lost = run["final_similarity"].where(run["face"] != "f0")
    gone = {
        "adapter_window": [run.assign(final_similarity=lost), evidence.runs["adapter_window"][1]]
    }
    (window,) = savings(replace(evidence, runs=gone), "pocket_dev").windows
    own = evidence.endpoint(run)
    expected = float(own.where(own["face"] == "f0").mean()) / 6
    assert float(window.lost["mean"]) == pytest.approx(expected)


def test_without_the_whole_run_nothing_is_compared():
    with pytest.raises(MissingEvidenceError, match=r"adapter.window=\[0,28\]"):
        savings(made({4: 0.1, 14: 0.0}), "pocket_dev")


def test_the_interval_of_seconds_is_welchs_for_free_calls():
    rng = np.random.default_rng(3)
    slow, fast = (np.sort(rng.normal(mean, 0.1, 9))[::2] for mean in (2.0, 1.5))
    slow, fast = (x[[0, 4, 1, 3, 2]] for x in (slow, fast))  # neighbours that do not correlate
    found = saved(Calls(slow), Calls(fast))
    assert float(found["mean"]) == pytest.approx(slow.mean() - fast.mean())
    if found.attrs["worth"] == [5.0, 5.0]:
        expected = stats.ttest_ind(slow, fast, equal_var=False).confidence_interval(0.95)
        np.testing.assert_allclose([found["low"], found["high"]], expected, rtol=1e-6)
    assert found["low"] < found["mean"] < found["high"]
    assert np.isnan(float(saved(Calls(slow), Calls(fast[:1]))["low"]))
