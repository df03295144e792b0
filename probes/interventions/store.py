"""The run that holds edited samples: beside the run that they continue, with one place for each."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from stepscope.hooks.errors import RunError
from stepscope.hooks.layout import Layout
from stepscope.hooks.store import Run
from stepscope.hooks.vocabulary import VARIABLES, Variable
from stepscope.probes.interventions.names import CLAMPED, GROUP
from stepscope.probes.interventions.planned import Planned, labels
from stepscope.probes.interventions.study import CausalStudy

DECLARED = {
    CLAMPED: Variable(
        ("sample", "channel", "y", "x"),
        "float32",
        "1",
        "estimate of the clean latents at the first edited step, from the recorded x_t of the sample; NaN "
        "where it was not asked for",
    )
}


def folder(plan: Planned) -> Path:
    """Where a study of a run lies."""
    return plan.run.path / GROUP / plan.study.name


def said(study: CausalStudy) -> dict[str, Any]:
    """What decides the study's samples, as JSON values."""
    parts = [
        {name: value for name, value in vars(part).items() if value is not None}
        for part in study.parts
    ]
    told = {"name": study.name, "every": study.every, "together": study.together, "parts": parts}
    told |= {word: getattr(study, word) for word in ("within", "among") if getattr(study, word)}
    if study.learns:
        there = study.directions_of and Path(study.directions_of).name
        told |= {"learn": study.learn, "regions": study.regions, "directions_of": there}
    return json.loads(json.dumps(told))


def open_or_create(plan: Planned) -> Run:
    """The interventions' run, with a place for every sample of the plan.

    Raises RunError where it holds another study of that name, or other samples.
    """
    path, wanted = folder(plan), labels(plan)
    if path.exists():
        store = Run.open(path)
        then, now = store.attributes.get("intervention"), said(plan.study)
        rows = zip(store.read("face").tolist(), store.read("base").tolist(), strict=True)
        if then != now or [*rows] != [(one["face"], one["base"]) for one in wanted]:
            raise RunError(
                f"{path} holds another study of this name, or other samples: remove it, or name this one "
                "edit.name=..."
            )
        return store
    about = plan.run.store.attributes
    about.pop("schema_version", None)
    store = Run.create(path, layout(plan), wanted, {**about, "intervention": said(plan.study)})
    store.write_steps({name: plan.run.store.read(name) for name in ("sigma", "timestep")})
    return store


def layout(plan: Planned) -> Layout:
    """Variables of the interventions' run."""
    steps, latent = plan.run.steps, plan.run.latent_shape
    variables = {
        "done": (VARIABLES["done"], ()),
        **{name: (VARIABLES[name], (steps,)) for name in ("sigma", "timestep")},
        "final_latents": (replace(VARIABLES["final_latents"]), latent),
        CLAMPED: (DECLARED[CLAMPED], latent),
    }
    return Layout(variables, {"step": ("step", np.arange(steps))})


def values(final: np.ndarray, x0: np.ndarray | None) -> dict[str, np.ndarray]:
    """The variables of one sample."""
    return {
        "final_latents": final,
        CLAMPED: np.full_like(final, np.nan) if x0 is None else x0,
    }
