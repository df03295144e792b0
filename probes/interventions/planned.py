"""Every edited sample of a causal study on one run, and the recorded images that it is compared with."""

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from stepscope.hooks.edits import Edit, Scale
from stepscope.hooks.edits.sites import Sites
from stepscope.hooks.errors import StepscopeError, nearest
from stepscope.probes import grid
from stepscope.probes.interventions.batch import ADAPTER, Job, computed_once
from stepscope.probes.interventions.companions import RANDOM, SAME
from stepscope.probes.interventions.names import ANCHOR
from stepscope.probes.interventions.part import Intervention, Part, in_order
from stepscope.probes.interventions.study import CausalStudy
from stepscope.probes.rereading import Rereading


@dataclass(frozen=True)
class Anchor:
    """An image that an effect is compared with.

    donor: empty for the sample's own, else whose it is. step: that whose recorded x0 is kept beside the
    final latents, for clamped effects; None for the final latents alone.
    """

    cell: grid.Cell
    base: grid.Cell
    donor: str
    step: int | None = None


@dataclass(frozen=True)
class Planned:
    """What a study makes of a run: anchors, and jobs in the order of their places.

    adapter: the sites of the adapter that is studied.
    """

    run: Rereading
    study: CausalStudy
    anchors: tuple[Anchor, ...]
    jobs: tuple[Job, ...]
    adapter: tuple[str, ...] = ADAPTER

    @property
    def size(self) -> int:
        """How many samples it makes, anchors among them."""
        return len(self.anchors) + len(self.jobs)

    @property
    def donors(self) -> set[str]:
        """Kinds of donor whose values or images are needed."""
        return {anchor.donor for anchor in self.anchors} - {""}

    def companions(self) -> list[tuple[grid.Cell, str]]:
        """The samples, by kind of donor, that are not recorded and are denoised for their values."""
        return [
            (anchor.base, anchor.donor)
            for anchor in self.anchors
            if anchor.donor in ("same", "off")
        ]

    def evaluations(self, jobs: Sequence[Job]) -> int:
        """Evaluations of the denoiser for one sample each, without those of rows that give values."""
        return sum(self.run.steps - job.intervention.start for job in computed_once(jobs))


def planned(run: Rereading, study: CausalStudy, sites: Sites) -> Planned:
    """The study's samples on a run, by sample, part and window.

    Raises StepscopeError for a face, prompt or seed that the run does not have, and for a face in some
    steps of a run whose adapter is not on in all of them; EditError for sites.
    """
    bases = select(run, study)
    check_on(run, study)
    check_named(run, study, sites)

    def interventions(part: Part, seed: int) -> tuple[Intervention, ...]:
        every = part.interventions(sites, run.steps, study.every, study.together, seed)
        return tuple(filter(study.holds, every))

    made = {part: interventions(part, 0) for part in study.made}
    if not any(made.values()):
        raise StepscopeError(
            f"within={study.within}, among={list(study.among)}: no window of the study is named after them"
        )
    donors = sorted(donors_of(study.made))
    others = run.others if "other" in donors or any(p.donor == "other" for p in study.made) else {}
    faces = list(dict.fromkeys(cell.face for cell in bases))
    clamped = sorted({one.at for part, some in made.items() if part.clamped for one in some})
    anchors, jobs, place = [], [], 0
    for base in bases:
        ends = [(donor, None) for donor in ("", *donors)]
        ends += [(donor, step) for step in clamped for donor in ("", *({"other"} & {*donors}))]
        for donor, step in ends:
            anchors.append(Anchor(replace(base, index=place), base, donor, step))
            place += 1
        for part, same in made.items():
            if part.faces is not None and base.face not in faces[: part.faces]:
                continue
            for one in interventions(part, base.index) if part.shuffled else same:
                given = face_given(one, base, others)
                prompt = str(one.part.to) if one.part.do == "prompt" else base.prompt
                cell = replace(base, index=place, face=given, prompt=prompt)
                jobs.append(Job(cell, base, one))
                place += 1
    own = tuple(sites.chosen(Edit(ADAPTER, Scale(0.0)))) if run.study.beside else ADAPTER
    return Planned(run, study, tuple(anchors), tuple(jobs), own)


def check_named(run: Rereading, study: CausalStudy, sites: Sites) -> None:
    """Raise StepscopeError for `within` outside of the run, and for `among` that matches no block."""
    if study.within is not None and study.within[0] >= run.steps:
        raise StepscopeError(
            f"within={list(study.within)} holds no step of {run.path}: it has {run.steps}, from 0 to "
            f"{run.steps - 1}"
        )
    blocks = in_order(sites.names)
    for pattern in study.among:
        if not fnmatch.filter(blocks, pattern):
            raise StepscopeError(f"among: no block matches {pattern!r}; {nearest(pattern, blocks)}")


def check_on(run: Rereading, study: CausalStudy) -> None:
    """Raise StepscopeError where a face changes to and fro and the adapter is not on in every step."""
    adapter = run.study.adapter
    if adapter is None or adapter.steps_on(run.sigma.tolist()) == list(range(run.steps)):
        return
    for part in study.made:
        if part.do == "face" and part.shuffled:
            raise StepscopeError(
                f"part {part.name}: do=face steps={part.steps} is made of runs with the adapter on in "
                f"every step, and {run.path} has adapter.window={list(adapter.window)}"
            )


def donors_of(parts: Sequence[Part]) -> set[str]:
    """The kinds of donor whose final images the effects of parts are counted to; `off` for zeros."""
    image = {"": "off", "random": "other"}
    return {image.get(counted(part), counted(part)) for part in parts}


def counted(part: Part) -> str:
    """Whose run a part's effects are counted to, as a sample's label; empty for the run without adapter."""
    if part.do == "steer":
        return "other" if part.along == "other" else ""
    return part.donor or ""


def face_given(one: Intervention, base: grid.Cell, others: dict[str, str]) -> str:
    """The face that the adapter is given in the intervention's steps."""
    if one.part.do != "face":
        return base.face
    known = {
        "other": others.get(base.face, ""),
        "same": SAME + base.face,
        "random": RANDOM + base.face,
    }
    return known[str(one.part.donor)]


def select(run: Rereading, study: CausalStudy) -> list[grid.Cell]:
    """The samples that the study is made on.

    Raises StepscopeError for a face, prompt or seed that the run does not have.
    """
    for word in ("face", "prompt", "seed"):
        known = list(dict.fromkeys(getattr(cell, word) for cell in run.cells))
        for one in getattr(study, f"{word}s"):
            if one not in known:
                near = nearest(str(one), [str(name) for name in known])
                raise StepscopeError(f"{word}s: {run.path} has no {one!r}; {near}")
    return [
        cell
        for cell in run.cells
        if all(
            not getattr(study, f"{word}s") or getattr(cell, word) in getattr(study, f"{word}s")
            for word in ("face", "prompt", "seed")
        )
    ]


def labels(plan: Planned) -> list[dict[str, Any]]:
    """Coordinates of every sample of the interventions' run, in order of their places."""
    others = plan.run.others if "other" in plan.donors else {}

    def of(base: grid.Cell, donor: str, **more: Any) -> dict[str, Any]:
        """`donor_face`: whom effects lead to; the own person's with another photo, and without a face."""
        leads = "" if donor in ("same", "off") else others.get(base.face, "")
        return {
            "face": base.face, "prompt": base.prompt, "seed": base.seed, "base": base.index,
            "donor": donor, "donor_face": leads, **more,
        }  # fmt: skip

    none = {
        "do": "",
        "blocks": "",
        "at_block": "",
        "sites": "",
        "to": "",
    }

    def at(step: int | None) -> dict[str, Any]:
        if step is None:
            return {"steps": "", "at": 0, "at_sigma": 0.0}
        return {"steps": "only", "at": step, "at_sigma": float(plan.run.sigma[step])}

    rows = {
        anchor.cell.index: of(anchor.base, anchor.donor, part=ANCHOR, **none, **at(anchor.step))
        for anchor in plan.anchors
    }
    for job in plan.jobs:
        one = job.intervention
        rows[job.index] = of(
            job.base,
            counted(one.part),
            part=one.part.name,
            do=one.part.do,
            steps=one.part.steps,
            at=one.at,
            at_sigma=float(plan.run.sigma[one.at]),
            blocks=one.part.blocks,
            at_block=one.block,
            sites=" ".join(one.part.sites),
            to="" if one.part.to is None else str(one.part.to),
        )
    return [rows[place] for place in sorted(rows)]
