"""What of a causal study cannot be made on a run, said before any model of it is loaded."""

from collections.abc import Mapping
from dataclasses import replace

from hydra.errors import HydraException

from stepscope.hooks.errors import StepscopeError, UnsupportedPipelineError
from stepscope.probes.command import composition
from stepscope.probes.composing import composed
from stepscope.probes.interventions import companions
from stepscope.probes.interventions.planned import Planned
from stepscope.probes.plan import skeletons
from stepscope.probes.replay import FLOW, MEMORYLESS, no_flow, not_memoryless
from stepscope.probes.study import Backbone, Study
from stepscope.probes.values import checked


def check_makeable(plan: Planned) -> None:
    """Raise StepscopeError for a study that the run's models could not make.

    A scheduler whose steps depend on earlier ones; `donor: same` without another photo of a person; a
    backbone that cannot take over the run's x_t.
    """
    scheduler = plan.run.store.attributes["scheduler"]["class"]
    if scheduler not in {kind.__name__ for kind in MEMORYLESS}:
        raise UnsupportedPipelineError(not_memoryless(scheduler))
    parts = plan.study.made
    faces = list(dict.fromkeys(anchor.base.face for anchor in plan.anchors))
    if any(part.donor == "same" for part in parts):
        there = companions.other_photos(faces, plan.study.photos) if plan.study.photos else {}
        names = {companions.SAME + face for face in there}
        for face in faces:
            companions.needed_face(names, face, plan.study.photos)
    for name, other in other_backbones(plan).items():
        check_takes_over(plan, name, other, scheduler)


def other_backbones(plan: Planned) -> Mapping[str, Study]:
    """The run's study on every other backbone that continues it, by the backbone's name.

    Raises StepscopeError for a name that is not in conf/backbone.
    """
    found = {}
    for name in dict.fromkeys(str(p.to) for p in plan.study.made if p.do == "backbone"):
        try:
            own = composed([f"backbone={name}", "prompts=[a]"])
        except HydraException as error:
            raise StepscopeError(f"backbone {name!r}: {composition(error)}") from error
        found[name] = replace(
            plan.run.study,
            backbone=checked(Backbone, own["backbone"]),
            guidance=own["guidance"],
            true_cfg=own["true_cfg"],
        )
    return found


def check_takes_over(plan: Planned, name: str, other: Study, scheduler: str) -> None:
    """Raise StepscopeError for a backbone of another family, without flow, or with other latents."""
    run = plan.run
    if other.family.name != run.study.family.name:
        raise StepscopeError(
            f"backbone {name!r} is of the family {other.family.name}, and {run.path} of "
            f"{run.study.family.name}: the latents of one mean nothing to the other"
        )
    if scheduler != FLOW.__name__:
        raise UnsupportedPipelineError(no_flow(scheduler))
    latent = skeletons(other).outline.latent
    if latent != run.latent_shape:
        raise StepscopeError(
            f"backbone {name!r} has latents of {latent} (channel, y, x) at this size, and {run.path} of "
            f"{run.latent_shape}"
        )
