"""The list of cases on which coverage is measured: every estimator on synthetic studies."""

from dataclasses import replace
from typing import Any

import numpy as np

from stepscope.analysis.coverage_case import Case
from stepscope.analysis.saturation import BrokenLine, ExponentialApproach, ShareOfPlateau
from stepscope.analysis.simulated import (
    band_case,
    crossed_case,
    detection_case,
    drift_case,
    effect_case,
    faster_case,
    lag_case,
    mean_case,
    seconds_case,
    window_case,
)
from stepscope.analysis.synthetic import Approach, Hinge, Study, Timing

CORRELATED: dict[str, Any] = {"step_correlation": 0.9, "face_step_sd": 0.03}
HINGE, APPROACH = Study(Hinge(9.3)), Study(Approach(4.0))
PACED = replace(HINGE, timing_sd=0.2), replace(APPROACH, timing_sd=0.2)
DRIFTING, BETWEEN = Study(Hinge(9.0, slope=-0.01)), Study(Hinge(9.3, slope=-0.01))
SHARE = ShareOfPlateau(share=0.9)
MANY = replace(HINGE, prompts=3, seeds=6)

CASES: tuple[Case, ...] = (
    window_case("share of plateau", HINGE, SHARE, 0.9 * 9.3),
    window_case("share of plateau, faces differ in pace", PACED[0], SHARE),
    window_case("share of plateau, smooth curve", PACED[1], SHARE),
    window_case(
        "share of plateau, steps go together", replace(HINGE, **CORRELATED), SHARE, 0.9 * 9.3
    ),
    window_case(
        "share of rise", replace(HINGE, shift=1.0), replace(SHARE, origin="first"), 0.9 * 9.3
    ),
    window_case("broken line, flat", HINGE, BrokenLine(), 9.3),
    window_case("broken line, flat, faces differ in pace", PACED[0], BrokenLine()),
    window_case(
        "broken line, flat, steps go together", replace(HINGE, **CORRELATED), BrokenLine(), 9.3
    ),
    window_case("broken line, sloped", BETWEEN, BrokenLine(after="sloped"), 9.3),
    window_case("broken line, sloped, break on a point", DRIFTING, BrokenLine(after="sloped"), 9.0),
    window_case("exponential", APPROACH, ExponentialApproach(share=0.9), 4 * np.log(10)),
    window_case("exponential, faces differ in pace", PACED[1], ExponentialApproach(share=0.9)),
    lag_case("lag, broken line", HINGE, Study(Hinge(14.0)), BrokenLine(), 14.0 - 9.3),
    lag_case("lag, share of plateau", HINGE, Study(Hinge(14.0)), SHARE, 0.9 * (14.0 - 9.3)),
    drift_case("drift, from the peaks it names", DRIFTING, from_named_peak=True),
    drift_case("drift, from the population's peak", DRIFTING, from_named_peak=False),
    drift_case("drift where there is none", HINGE, from_named_peak=False),
    mean_case("mean", HINGE, 0.6),
    mean_case("mean, skewed faces", replace(HINGE, skewed=True, face_sd=0.16), 0.6),
    detection_case("detection rate", HINGE),
    detection_case("detection rate, faces differ", replace(HINGE, missing_icc=0.1)),
    detection_case("detection rate, faces differ, 18 cells", replace(MANY, missing_icc=0.3)),
    detection_case("detection rate, faces differ much, 18 cells", replace(MANY, missing_icc=0.6)),
    effect_case("paired effect", 0.028),
    effect_case("d_z", 0.028, standardised=True),
    effect_case("d_z, large", 0.2, standardised=True),
    crossed_case("mean, prompts and seeds drawn", replace(HINGE, prompt_sd=0.04, seed_sd=0.02)),
    crossed_case("mean, prompts and seeds drawn, alike", HINGE),
    crossed_case(
        "share of plateau, prompts differ in pace", replace(HINGE, prompt_timing_sd=0.2), SHARE
    ),
    band_case("whole mean curve", Study(Approach(4.0), face_step_sd=0.03, shift=0.1)),
    band_case("whole mean curve, steps go together", Study(Approach(4.0), shift=0.1, **CORRELATED)),
    seconds_case("seconds an image", Timing(5.9, cold=1.5)),
    seconds_case("seconds an image, calls go together", Timing(5.9, cold=1.5, correlation=0.6)),
    faster_case("times faster", Timing(5.9, cold=1.5), Timing(1.0, spread=0.2, cold=1.5)),
)
"""Quantities with known values, read by the coverage table and by the tests."""
