"""What a study will take, before anything is run: hours and gigabytes, from measured seconds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stepscope.analysis.commands import Planned
from stepscope.hooks.errors import StepscopeError
from stepscope.hooks.store import Run
from stepscope.probes.backbones.folders import LatentSizes, latent_sizes
from stepscope.probes.plan import counted
from stepscope.probes.readings import default_steps_off
from stepscope.probes.study import Study
from stepscope.probes.weights import WeightsError

PUBLISHED = {"flux": LatentSizes(16, 8), "sd15": LatentSizes(4, 8), "sdxl": LatentSizes(4, 8)}
"""Latents of a family's published models, for a backbone that is not on this machine."""


def describe(planned: Sequence[Planned], models: Mapping[str, Any]) -> str:
    """The plan as text: every run with its samples, seconds and bytes, and the sums.

    models: the `machine` and on it the `seconds` of a sample, a step, a measured frame and a run's
    start, as in conf/models; see `timings` for the backbones that these are not of. Time and space of
    finished runs are counted too; a run that several experiments read is counted once.
    """
    lines, seconds, space = [], 0.0, 0.0
    untimed: dict[str, int] = {}
    every_step = {one.path for one in planned if one.experiment.every_step}
    made: dict[Path, int] = {}
    known = timings(planned, models)
    for one in planned:
        if not one.made_here or one.path in made:
            lines.append(f"  {label(one)}  in {one.path.name}")
            continue
        name = one.study.backbone.name
        size = run_bytes(one, latents_of(one.study))
        space += size
        made[one.path] = one.cells
        state = f", {progress_of(one.path)}" if one.path.exists() else ""
        if name not in known:
            untimed[name] = untimed.get(name, 0) + 1
            told = f"{'-':>6}"
        else:
            took = run_seconds(one, known[name], every_step=one.path in every_step)
            took += sum(reread_seconds(o, known[name]) for o in planned if o.path == one.path)
            seconds, told = seconds + took, f"{took / 60:6.1f}"
        lines.append(f"  {label(one)}  {told} min {size / 1e9:7.2f} GB{state}")
    time = f"{seconds / 3600:.2f} hours" if seconds >= 3600 else f"{seconds / 60:.1f} minutes"
    runs = " and ".join(f"{counted(n, 'run')} of {name}" for name, n in untimed.items())
    more = f", besides {runs}, whose times the first finished sample tells" if untimed else ""
    lines.append(
        f"{counted(len(made), 'run')}, {counted(sum(made.values()), 'sample')}: about {time} on "
        f"{models['machine']}{more}, and {space / 1e9:.2f} GB before compression"
    )
    return "\n".join(lines)


def timings(
    planned: Sequence[Planned], models: Mapping[str, Any]
) -> dict[str, Mapping[str, float]]:
    """The seconds of each backbone, as far as they are known.

    Those of the models are of their baseline and swapped backbone. Another one's step is the median of the
    planned runs of it that have finished samples, on whatever machine made them.
    """
    named: Mapping[str, float] = models["seconds"]
    found: dict[str, Mapping[str, float]] = {
        models[word]: named for word in ("baseline", "swapped")
    }
    seen: dict[str, list[float]] = {}
    for one in planned:
        if one.study.backbone.name not in found and one.path.exists():
            seen.setdefault(one.study.backbone.name, []).extend(pass_seconds(one))
    more = {name: {**named, "step": float(np.median(all_))} for name, all_ in seen.items() if all_}
    return found | more


def pass_seconds(one: Planned) -> list[float]:
    """Median seconds of an evaluation of the denoiser for one sample, of each finished one of a run."""
    try:
        run = Run.open(one.path)
        done = run.done
        seconds = run.read("step_seconds")[done] / run.read("batch_size")[done, None]
    except (StepscopeError, KeyError):
        return []
    return list(np.median(seconds, axis=1) / one.study.branches)


def latents_of(study: Study) -> LatentSizes:
    """Of the backbone's VAE, or of its family's where the backbone is not on this machine."""
    try:
        return latent_sizes(study.family.folder(study.backbone, download=False))
    except (WeightsError, OSError):
        return PUBLISHED[study.backbone.family]


def progress_of(path: Path) -> str:
    """How far a run is: `done`, or `7 of 12 samples done`."""
    try:
        done = Run.open(path).done
    except StepscopeError:
        return "begun"
    return "done" if done.all() else f"{done.sum()} of {counted(len(done), 'sample')} done"


def label(one: Planned) -> str:
    """Experiment, backbone, settings and samples in columns."""
    study = one.study
    scale = f"α {study.adapter.strength:g}" if study.adapter is not None else "no adapter"
    guidance = "" if study.guidance is None else f", guidance {study.guidance:g}"
    cfg = f", true CFG {study.true_cfg:g}" if study.true_cfg > 1 else ""
    if study.adapter is not None and study.adapter.window_unit == "step":
        scale += " in steps [{:g}, {:g})".format(*study.adapter.window)
    what = f"{study.backbone.name}, {study.steps} step{'s' * (study.steps > 1)}, {scale}{guidance}{cfg}"
    return f"{one.experiment.name:<18} {what:<52} {one.cells:>4} samples"


def run_seconds(one: Planned, seconds: Mapping[str, float], *, every_step: bool) -> float:
    """Loading, making and measuring a run, in seconds."""
    study = one.study
    steps = study.steps * study.branches
    frames = study.steps + 1 if every_step else 1
    each = seconds["sample"] + steps * seconds["step"] + frames * seconds["frame"]
    return seconds["run"] + one.cells * each


def reread_seconds(one: Planned, seconds: Mapping[str, float]) -> float:
    """Evaluations of the denoiser and measured frames of what is read again of a run, in seconds."""
    study, readings = one.study, one.experiment.readings
    steps, off = study.steps, default_steps_off(study.steps)
    along = sum(reading != "committed" for reading in readings)
    evaluations, frames = along * steps, along * steps
    if "committed" in readings:
        evaluations, frames = evaluations + sum(steps - k for k in off), frames + len(off) + 1
    samples = len(study.faces) * len(one.reread_prompts) * len(study.seeds)
    each = evaluations * study.branches * seconds["step"] + frames * seconds["frame"]
    return samples * each


def run_bytes(one: Planned, latent: LatentSizes) -> float:
    """Latents and estimates in float32, decoded images in uint8; norms are small beside them."""
    study = one.study
    pixels = study.height * study.width
    latents = latent.channels * pixels / latent.factor**2 * 4
    return one.cells * ((2 * study.steps + 1) * latents + (study.steps + 1) * pixels * 3)
