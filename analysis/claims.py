"""The paper's three claims, put to the measured runs: every word of the verdict follows from a number."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import xarray as xr

from analysis.calls import seconds_an_image
from analysis.drift import lag
from analysis.evidence import Evidence, MissingEvidenceError, budgets, setting
from analysis.quantities import name, run_name, sharpness, short
from analysis.saturation import ShareOfPlateau, panel
from analysis.tables.table import Number
from analysis.tables.table1_main import counted, times_faster
from analysis.windows import sensitivity, window
from hooks.errors import StepscopeError

PAPERS_WINDOW = 8  # steps: "often within 4-8"
SHARES = (0.8, 0.95)  # beside the evidence's own


@dataclass(frozen=True)
class Claim:
    """What was claimed, in the paper's words; what the models say, in a word and in numbers."""

    title: str
    claimed: str
    verdict: str
    evidence: tuple[str, ...]


def transfer(evidence: Evidence) -> Claim:
    """Does the frozen adapter carry the identity into the swapped backbone?"""
    runs = [evidence.one("main", backbone=b) for b in evidence.backbones]
    ends = [evidence.endpoint(run) for run in runs]
    found = Number.of(evidence.effect(*ends), "effect")
    means = [Number.of(evidence.average(end), "mean") for end in ends]
    pairs = int(evidence.effect(*ends)["pairs"])
    told = [
        f"Cosine under {evidence.recogniser(runs[0])}: {means[1]} for {run_name(runs[1])}, "
        f"{means[0]} for {run_name(runs[0])}; paired difference {found} ({pairs} pairs).",
    ]
    try:
        calls = counted([seconds_an_image(run) for run in runs])
        told.append(f"Faster by {times_faster(evidence, runs)} (pipeline: {calls}).")
    except MissingEvidenceError as error:
        told.append(f"Latency: {error}.")
    try:
        gains = [over_none(evidence, backbone) for backbone in evidence.backbones]
        told.append(
            f"Gained over the same backbone without adapter: {gains[1]} for {name(evidence.swapped)}, "
            f"{gains[0]} for {name(evidence.baseline)}."
        )
        carried = sign(gains[1], "the adapter's identity reaches", "the adapter works against")
        carried = carried or "no effect of the adapter is shown in"
        carried += f" {name(evidence.swapped)}, and"
    except StepscopeError:
        carried = "in the same cells"
    word = sign(found, "higher", "lower") or "no different, as far as these pairs show,"
    verdict = f"{carried} similarity is {word} than with {name(evidence.baseline)}"
    if np.isnan(found.low):
        verdict = "no verdict: an interval needs at least two faces"
    claimed = "same frozen adapter, 4 steps for 28: 5.9x faster, similarity +0.028 (FLUX.1)"
    return Claim("Transfer", claimed, verdict, tuple(told))


def over_none(evidence: Evidence, backbone: str) -> Number:
    """Lift of the full adapter over none, from `weak_adapter`."""
    runs = evidence.all("weak_adapter", backbone=backbone)
    by_scale = {setting(run, "adapter.scale"): evidence.endpoint(run) for run in runs}
    if 0.0 not in by_scale or len(by_scale) < 2:
        raise MissingEvidenceError("no run without adapter")
    return Number.of(evidence.effect(by_scale[0.0], by_scale[max(by_scale)]), "effect")


def early_window(evidence: Evidence) -> Claim:
    """Where identity saturates, in both modes, by every estimator."""
    told, within, asked = [], 0, 0
    for backbone in evidence.backbones:
        run = evidence.one("trajectory", backbone=backbone)
        for mode, values in (
            (f"Along {run_name(run)} (step 0 is the first)", lambda r=run: evidence.identity(r)),
            (
                f"Whole runs of {name(backbone)} (number of steps)",
                lambda b=backbone: whole(evidence, b),
            ),
        ):
            try:
                curves = values()
                positions = positions_by_estimator(evidence, curves)
            except StepscopeError as error:
                told.append(f"{mode}: {error}.")
                continue
            listed = [f"{label} {value}" for label, value in positions]
            told.append(f"{mode}: {'; '.join(listed)}.")
            if backbone == evidence.baseline:
                first = 1 if "step" in curves.dims else 0  # step 7 is the eighth
                ends = [value.high + first for _, value in positions if isinstance(value, Number)]
                within += sum(end <= PAPERS_WINDOW for end in ends)
                asked += len(positions)
                told.append(by_share(evidence, curves))
    verdict = (
        f"of {asked} estimates for {name(evidence.baseline)} (both modes), {within} end within "
        f"{PAPERS_WINDOW} steps with their whole interval"
    )
    if not asked:
        verdict = "no verdict: no window could be estimated with an interval"
    claimed = "identity enters an effective regime often within 4-8 steps"
    return Claim("Early window", claimed, verdict, tuple(told))


def whole(evidence: Evidence, backbone: str) -> xr.DataArray:
    """Endpoints by number of steps."""
    return budgets(evidence, evidence.all("step_budget", backbone=backbone))


def positions_by_estimator(
    evidence: Evidence, curves: xr.DataArray
) -> list[tuple[str, Number | str]]:
    """Each estimator's position, or its reason for none."""
    found = []
    for estimator in panel(evidence.share):
        one = window(curves, estimator, evidence.window_interval, against="step")
        reason = one["reason"].item()
        found.append(
            (short(estimator), f"none ({reason})" if reason else Number.of(one, "position", 1))
        )
    return found


def by_share(evidence: Evidence, curves: xr.DataArray) -> str:
    """How the first estimator's position hangs on the share of the plateau that is asked for."""
    shares = sorted({*SHARES, evidence.share})
    first = ShareOfPlateau(share=evidence.share)
    found = sensitivity(curves, first, shares, evidence.window_interval, against="step")
    each = [
        f"{share:.0%} at {Number.of(found.sel(share=share), 'position', 1)}" for share in shares
    ]
    return f"The same by the share of the plateau: {'; '.join(each)}."


def later_detail(evidence: Evidence) -> Claim:
    """Does sharpness go on rising where identity has saturated?"""
    run = evidence.one("trajectory", backbone=evidence.baseline)
    identity, detail = evidence.identity(run), sharpness(run)
    estimator = ShareOfPlateau(share=evidence.share)
    end = window(identity, estimator, evidence.window_interval, against="step")
    told = []
    try:
        same = ShareOfPlateau(share=evidence.share, origin="first")
        later = lag(identity, detail, same, evidence.window_interval, against="step")
        told.append(
            f"Sharpness of the face reaches {evidence.share:.0%} of its rise {Number.of(later, 'lag', 1)} "
            "steps after identity does (by the same estimator, counted from the first step)."
        )
    except StepscopeError as error:
        told.append(f"Lag of sharpness: {error}.")
    if not np.isfinite(end["position"]):
        verdict = (
            f"identity has no window in {run_name(run)} to be later than ({end['reason'].item()})"
        )
        return Claim("Later steps refine detail", CLAIMED_DETAIL, verdict, tuple(told))
    step = int(np.ceil(end["position"]))
    gains = []
    for label, values in (("Sharpness of the face", detail), ("Identity", identity)):
        first, last = (
            values.isel(step=i).drop_vars(("step", "sigma"), errors="ignore") for i in (step, -1)
        )
        change, level = evidence.effect(first, last), Number.of(evidence.average(last), "mean")
        gains.append(Number.of(change, "effect"))
        told.append(
            f"{label} from step {step}, the window's end, to the last: {gains[-1]}, to {level}."
        )
    rises = sign(gains[0], "still rises", "falls") or "shows no change"
    stays = sign(gains[1], "rises a little further", "falls") or "shows no change"
    verdict = f"after the window sharpness {rises}, identity {stays}"
    return Claim("Later steps refine detail", CLAIMED_DETAIL, verdict, tuple(told))


CLAIMED_DETAIL = "later steps refine detail, sharpness and contrast"
CLAIMS: dict[str, Callable[[Evidence], Claim]] = {
    "Transfer": transfer,
    "Early window": early_window,
    "Later steps refine detail": later_detail,
}


def sign(number: Number, above: str, below: str) -> str:
    """A word where the interval leaves zero out, an empty one where it does not or is not known."""
    if number.low > 0:
        return above
    return below if number.high < 0 else ""


def claims(evidence: Evidence) -> list[Claim]:
    """All three; one whose runs are missing says so."""
    found = []
    for title, claim in CLAIMS.items():
        try:
            found.append(claim(evidence))
        except StepscopeError as error:
            found.append(Claim(title, "", "not measured", (str(error),)))
    return found
