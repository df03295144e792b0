"""Confounders of the comparison, and the control of each, read from the runs.

*In part*: the runs control it only partly; the last column names the missing control.
"""

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr

from stepscope.analysis.calls import seconds_an_image
from stepscope.analysis.cells import CELL
from stepscope.analysis.compare import pair
from stepscope.analysis.evidence import Evidence
from stepscope.analysis.figures.figure1_replacement import differences, frozen
from stepscope.analysis.lookup import measured, setting
from stepscope.analysis.metrics.pairs import PAIRS
from stepscope.analysis.number import Entry
from stepscope.analysis.quantities import DISTANCES, name
from stepscope.analysis.speed import describe_calls
from stepscope.analysis.tables.table import Table
from stepscope.hooks.errors import StepscopeError
from stepscope.probes.usage import says

EXPERIMENTS = ("main", "trajectory", "step_budget", "guidance", "weak_adapter")
COLUMNS = ("confounder", "controlled", "how, read from the runs", "what would control it")
YES, PARTLY, NO, UNKNOWN = "yes", "in part", "no", "not measured"
Control = tuple[str, str, str]
"""Whether a confounder is controlled, how, and what would control it."""


def build(evidence: Evidence) -> Table:
    """Rows are confounders."""
    rows: list[list[Entry]] = []
    for what, how in CONFOUNDERS.items():
        try:
            rows.append([what, *how(evidence)])
        except StepscopeError as error:
            rows.append([what, UNKNOWN, str(error), ""])
    return Table(COLUMNS, rows)


def main(evidence: Evidence) -> list[xr.Dataset]:
    """Both runs of the main comparison."""
    return [evidence.one("main", backbone=b) for b in evidence.backbones]


def modes(evidence: Evidence) -> Control:
    run = evidence.one("trajectory", backbone=evidence.baseline)
    after = min(4, run.sizes["step"] - 1)
    along = (
        f"along one run of {setting(run, 'steps')} steps sigma is {run['sigma'].values[after]:.3f} after "
        f"{after} steps"
    )
    try:
        budgets = sorted(
            setting(r, "steps") for r in evidence.all("step_budget", backbone=evidence.baseline)
        )
    except StepscopeError:
        return (
            PARTLY,
            f"{along}; there are no whole runs of other step counts",
            "experiment step_budget",
        )
    return (
        YES,
        f"two modes, reported separately: {along}; whole runs of {listed(budgets)} steps",
        "",
    )


def everything_at_once(evidence: Evidence) -> Control:
    first, second = main(evidence)
    changed = differences(first.attrs["configuration"], second.attrs["configuration"])
    how = "; ".join(f"{key} {a} → {b}" for key, a, b in changed)
    here = setting(second, "steps")
    try:
        evidence.one("step_budget", backbone=evidence.baseline, steps=here)
    except StepscopeError:
        return NO, f"the swap changes {how}", f"the baseline in {here} steps (step_budget)"
    return (
        PARTLY,
        f"the swap changes {how}; the baseline in {here} steps is reported as well",
        "the swapped backbone at the baseline's sigmas",
    )


def schedule(evidence: Evidence) -> Control:
    how = []
    for run in main(evidence):
        about = run.attrs.get("scheduler", {})
        kept = ", ".join(f"{k} {about[k]}" for k in ("shift", "use_dynamic_shifting") if k in about)
        sigmas = ", ".join(f"{s:.3f}" for s in run["sigma"].values[:4])
        how.append(f"{name(setting(run, 'backbone'))} {sigmas} ({kept or 'settings not recorded'})")
    return YES, f"each backbone has its own; the first sigmas are: {'; '.join(how)}", ""


def guidance(evidence: Evidence) -> Control:
    how = []
    for run in main(evidence):
        embedded = setting(run, "guidance")
        how.append(
            f"{name(setting(run, 'backbone'))}: embedding {'none' if embedded is None else embedded}, "
            f"true CFG {setting(run, 'true_cfg')}, the adapter's own {setting(run, 'adapter.guidance')}"
        )
    try:
        runs = evidence.all("guidance")
    except StepscopeError:
        return PARTLY, f"one setting each ({'; '.join(how)})", "experiment guidance"
    varied = {
        word: listed(sorted({float(v) for r in runs if (v := setting(r, word)) is not None}))
        for word in ("guidance", "true_cfg")
    }
    return (
        YES,
        f"{'; '.join(how)}; varied at fixed steps: embedding {varied['guidance']}, true CFG "
        f"{varied['true_cfg']}",
        "",
    )


def judges(evidence: Evidence) -> Control:
    run = main(evidence)[0]
    every = measured(run, "final_similarity")
    circular = [
        str(who)
        for who, c in zip(every["recogniser"].values, every["conditioning"].values, strict=True)
        if c
    ]
    judge = evidence.recogniser(run)
    pocket = str(setting(run, "backbone")).startswith("pocket")
    conditioning = (
        f"{listed(circular)} conditions, and is marked"
        if circular
        else "the conditioning recogniser did not measure these runs"
    )
    how = f"{judge} evaluates and does not condition; {conditioning}"
    if pocket:
        return (
            PARTLY,
            f"{how}; both were trained on the same painted faces",
            "a recogniser trained on other faces, which does not exist for pocket models",
        )
    return YES, how, ""


def lost_faces(evidence: Evidence) -> Control:
    how = []
    for run in main(evidence):
        end = evidence.endpoint(run)
        how.append(
            f"{int(np.isnan(end.values).sum())} of {end.size} ({name(setting(run, 'backbone'))})"
        )
    return (
        YES,
        f"no face found in {'; '.join(how)}; left out and counted, never imputed; counted as failures in "
        "the verdict's worst case",
        "",
    )


def sites(evidence: Evidence) -> Control:
    run = evidence.one("trajectory", backbone=evidence.baseline)
    there = [n for n in ("attention_norm", "adapter_attention_norm", "contribution") if n in run]
    read = [n for n in ("carried_similarity", "committed_similarity") if n in run]
    how = f"recorded separately: {listed(there) or 'nothing'}; a norm ratio measures text, not identity"
    if len(read) < 2:
        return PARTLY, how, f"readings with the adapter off ({says('reread')})"
    return YES, f"{how}; identity is also measured with the adapter off: {listed(read)}", ""


def distances(evidence: Evidence) -> Control:
    run = main(evidence)[0]
    pairs = listed(run["pair"].values.tolist()) if "pair" in run.coords else ""
    found = [f"{word} to {pairs}" for variable, word in DISTANCES.items() if variable in run]
    if not found:
        return (
            UNKNOWN,
            f"no distance was measured; the pairs would be {listed(PAIRS)}",
            "metric lpips",
        )
    return YES, f"each pair is named: {'; '.join(found)}", ""


def noise_as_detail(evidence: Evidence) -> Control:
    run = evidence.one("trajectory", backbone=evidence.baseline)
    sharp = measured(run, "sharpness")
    how = f"of the decoded x0 at a fixed size: {listed(sharp['measure'].values.tolist())}"
    how += ", contrast separately" if "contrast" in run else ""
    if "null_similarity" not in run:
        return PARTLY, how, "the blur null (metric blur_null)"
    return YES, f"{how}; windows and lags are compared with those of the blurred final image", ""


def latency(evidence: Evidence) -> Control:
    runs = main(evidence)
    parts = measured(runs[0], "latency_seconds")
    there = [p for p in parts["part"].values.tolist() if np.isfinite(parts.sel(part=p)).any()]
    calls = describe_calls([seconds_an_image(run) for run in runs])
    return YES, f"seconds are those of pipeline calls: {calls}; parts measured: {listed(there)}", ""


def same_cells(evidence: Evidence) -> Control:
    runs = main(evidence)
    both = pair(*(evidence.endpoint(run) for run in runs))
    seeds = listed(sorted({*both.baseline["seed"].values.tolist()}))
    alone = both.unpaired_baseline + both.unpaired_changed
    files = frozen(*(run.attrs.get("weights", {}) for run in runs))
    cells = f"{both.baseline.sizes['sample']} cells in both, {alone} in one only, seeds {seeds}"
    how = f"{cells}; adapter: {files}"
    control = NO if "NOT the same" in files else PARTLY if alone else YES
    return control, how, "the same adapter's files in both" if control == NO else ""


def crossing(evidence: Evidence) -> Control:
    end = evidence.endpoint(main(evidence)[0])
    counts = {word: len(np.unique(end[word].values)) for word in CELL}
    how = " x ".join(f"{n} {word}{'s' * (n > 1)}" for word, n in counts.items())
    few = [word for word, n in counts.items() if n < 2]
    if few:
        return PARTLY, f"{how}; {listed(few)} is fixed", f"more than one {few[0]}"
    return YES, f"{how}, crossed; the verdicts give a second interval over all of them", ""


CONFOUNDERS: dict[str, Callable[[Evidence], Control]] = {
    "short whole runs versus the first steps of a long run": modes,
    "weights, step count, schedule and guidance change together": everything_at_once,
    "each backbone has its own scheduler": schedule,
    "three kinds of guidance: embedded, true CFG, the adapter's": guidance,
    "the evaluation recogniser versus the conditioning one": judges,
    "images in which no face is found": lost_faces,
    "where identity enters, and what a norm ratio measures": sites,
    "which pair of images a distance compares": distances,
    "sharpness rises with noise, and blur lowers similarity": noise_as_detail,
    "what a latency includes": latency,
    "the same cells, noise and adapter under both backbones": same_cells,
    "all faces share prompts and seeds": crossing,
}


def listed(values: Sequence[object]) -> str:
    """The values in one line."""
    return ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values)
