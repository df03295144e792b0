"""The causal studies of a paper: of which runs each is made, and of which of their samples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepscope.analysis.commands import Planned
from stepscope.hooks.errors import StepscopeError, nearest
from stepscope.probes.composing import composed
from stepscope.probes.faces import face_files
from stepscope.probes.interventions.names import GROUP
from stepscope.probes.interventions.study import CausalStudy
from stepscope.probes.study import prompts_of

METRIC = "edited_identity"


@dataclass(frozen=True)
class PlannedStudy:
    """One causal study of one run. path: where its edited samples lie."""

    study: CausalStudy
    of: Planned

    @property
    def path(self) -> Path:
        return self.of.path / GROUP / self.study.name

    @property
    def backbone(self) -> str:
        return self.of.study.backbone.name


def planned_studies(
    causal: Mapping[str, Any] | None, planned: Sequence[Planned], models: Mapping[str, Any]
) -> list[PlannedStudy]:
    """The studies of the configuration's `causal`, for the runs of the experiments that are planned.

    causal: by name of a file of `conf/edit`: `of`, an experiment; `faces`, the first so many; `prompts`;
    `every` and `together`, of the baseline and of the swapped backbone. Raises StepscopeError for a prompt
    that the experiment does not have.
    """
    found = []
    for name, values in (causal or {}).items():
        for one in planned:
            if one.experiment.name != values["of"]:
                continue
            known = prompts_of(one.study)
            for prompt in values["prompts"]:
                if prompt not in known:
                    raise StepscopeError(
                        f"causal.{name}.prompts: {values['of']} has no {prompt!r}; {nearest(prompt, known)}"
                    )
            swapped = one.study.backbone.name == models["swapped"]
            config = composed([f"edit={name}"], "intervene")
            config |= {
                "every": values["every"][swapped],
                "together": values["together"][swapped],
                "photos": list(models["photos"]),
                "prompts": list(values["prompts"]),
                "faces": list(face_files(one.study.faces))[: values["faces"]],
            }
            config.pop("runs")
            found.append(PlannedStudy(CausalStudy.from_config(config), one))
    return found
