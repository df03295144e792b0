"""The ratio of two means: Fieller's interval is where the paired t test turns."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from stepscope.analysis.ratio import NOT_ABOVE_ZERO, ratio
from stepscope.hooks.errors import StepscopeError

seeds = st.integers(0, 2**32 - 1)


def pairs(seed: int, faces: int = 8) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    shared = rng.normal(0, 0.1, faces)
    return 0.5 + shared + rng.normal(0, 0.05, faces), 0.6 + shared + rng.normal(0, 0.05, faces)


@given(seeds)
def test_a_bound_is_the_ratio_at_which_the_paired_test_turns(seed: int) -> None:
    above, below = pairs(seed)
    found = ratio(above, below, level=0.9)
    assert found["ratio"].item() == pytest.approx(above.mean() / below.mean())
    for bound in (found["low"].item(), found["high"].item()):
        turned = stats.ttest_1samp(above - bound * below, 0.0)
        assert turned[1] == pytest.approx(0.1)
    assert found["low"] < found["ratio"] < found["high"]


def test_it_holds_the_true_ratio_as_often_as_it_says() -> None:
    held = [
        found["low"].item() <= 5 / 6 <= found["high"].item()
        for found in (ratio(*pairs(seed), level=0.95) for seed in range(700))
    ]
    assert np.mean(held) == pytest.approx(0.95, abs=0.025)


def test_a_face_without_both_is_left_out_and_too_little_has_no_bounds() -> None:
    above, below = pairs(0)
    above[2], below[5] = np.nan, np.nan
    kept = [0, 1, 3, 4, 6, 7]
    found = ratio(above, below, level=0.95)
    assert found.attrs["faces"] == 6
    assert found["ratio"].item() == pytest.approx(above[kept].mean() / below[kept].mean())
    alone = ratio(above[:1], below[:1], level=0.95)
    assert np.isnan(alone["low"])
    assert alone.attrs["without_interval"] == "needs 2 faces; here 1"
    none = ratio(above, np.random.default_rng(0).normal(0, 1, 8), level=0.95)
    assert np.isnan(none["high"])
    assert none.attrs["without_interval"] == NOT_ABOVE_ZERO
    with pytest.raises(StepscopeError, match="no face has both"):
        ratio(np.full(3, np.nan), np.ones(3), level=0.95)
