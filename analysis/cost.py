"""What a study will take, before anything is run: hours and gigabytes, from measured seconds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stepscope.analysis.commands import Planned
from stepscope.hooks.errors import StepscopeError
from stepscope.hooks.store import Run
from stepscope.probes.plan import counted
from stepscope.probes.readings import default_steps_off

LATENTS = {"sd15": {"channels": 4, "factor": 8}, "sdxl": {"channels": 4, "factor": 8}}
"""Latents of families beside FLUX, whose seconds nobody measured here: their time is not told."""


def describe(planned: Sequence[Planned], models: Mapping[str, Any]) -> str:
    """The plan as text: every run with its samples, seconds and bytes, and the sums.

    models: the `machine` and on it the `seconds` of a sample, a step, a measured frame and a run's
    start, and the `latent` (channels, factor), as in conf/models, of FLUX; see LATENTS. Time and space of
    finished runs are counted too; a run that several experiments read is counted once.
    """
    lines, seconds, space = [], 0.0, 0.0
    untimed: dict[str, int] = {}
    every_step = {one.path for one in planned if one.experiment.every_step}
    made: dict[Path, int] = {}
    for one in planned:
        if not one.made_here or one.path in made:
            lines.append(f"  {label(one)}  in {one.path.name}")
            continue
        family = one.study.backbone.family
        size = run_bytes(one, LATENTS.get(family) or models["latent"])
        space += size
        made[one.path] = one.cells
        state = f", {progress_of(one.path)}" if one.path.exists() else ""
        if family in LATENTS:
            untimed[family] = untimed.get(family, 0) + 1
            told = f"{'-':>6}"
        else:
            took = run_seconds(one, models["seconds"], every_step=one.path in every_step)
            took += sum(reread_seconds(o, models["seconds"]) for o in planned if o.path == one.path)
            seconds, told = seconds + took, f"{took / 60:6.1f}"
        lines.append(f"  {label(one)}  {told} min {size / 1e9:7.2f} GB{state}")
    time = f"{seconds / 3600:.2f} hours" if seconds >= 3600 else f"{seconds / 60:.1f} minutes"
    runs = " and ".join(f"{counted(n, 'run')} of {family}" for family, n in untimed.items())
    more = f", besides {runs}, of which no times are known" if untimed else ""
    lines.append(
        f"{counted(len(made), 'run')}, {counted(sum(made.values()), 'sample')}: about {time} on "
        f"{models['machine']}{more}, and {space / 1e9:.2f} GB before compression"
    )
    return "\n".join(lines)


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


def run_bytes(one: Planned, latent: Mapping[str, int]) -> float:
    """Latents and estimates in float32, decoded images in uint8; norms are small beside them."""
    study = one.study
    pixels = study.height * study.width
    latents = latent["channels"] * pixels / latent["factor"] ** 2 * 4
    return one.cells * ((2 * study.steps + 1) * latents + (study.steps + 1) * pixels * 3)
