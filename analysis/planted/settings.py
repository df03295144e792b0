"""The settings of a benchmark, from plain values as `conf/planted.yaml` has them."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from pydantic import ConfigDict

from stepscope.hooks.errors import StepscopeError
from stepscope.probes.planting.bench import PEOPLE
from stepscope.probes.study import Study
from stepscope.probes.values import checked

_ONLY: ConfigDict = {"extra": "forbid"}


@dataclass(frozen=True)
class Settings:
    """What the benchmark itself is asked for.

    seed, count: of the organisms. targets: people whose identity is looked for, the first of the faces.
    together: neighbouring blocks of one cell. least, enough: see `Check.passes`. judge: an insightface
    pack. rows: of one call, at most. out: folder of the results. dry: list the organisms only.

    Raises StepscopeError for numbers that are not positive.
    """

    seed: int
    count: int
    targets: int
    together: int
    least: float
    enough: float
    judge: str
    rows: int
    out: str
    dry: bool

    __pydantic_config__ = _ONLY

    def __post_init__(self) -> None:
        for word in ("count", "targets", "together", "rows"):
            if getattr(self, word) < 1:
                raise StepscopeError(f"{word}={getattr(self, word)} is not positive")


def from_config(config: Mapping[str, Any]) -> tuple[Settings, Study]:
    """The benchmark's settings and the study whose models it uses.

    Raises StepscopeError for a wrong value, without an adapter, and for too few people.
    """
    values = dict(config)
    settings = checked(Settings, {one.name: values.pop(one.name) for one in fields(Settings)})
    prompt, noise = values.pop("prompt"), values.pop("noise")
    study = Study.from_config(
        {
            **values, "prompts": [prompt], "seeds": [noise], "record": {"level": "norms"},
            "true_cfg": 1.0, "negative_prompt": None, "control_image": None,
            "control_image_kind": "photo", "initial_latents": None, "batch_size": settings.rows,
            "out": None, "dry": False,
        }
    )  # fmt: skip
    if study.adapter is None:
        raise StepscopeError("adapter=none: identity is planted in what an adapter adds")
    if len(study.faces) < max(PEOPLE, settings.targets):
        raise StepscopeError(
            f"faces: {len(study.faces)} of them for targets={settings.targets}; {PEOPLE} people or more "
            "are needed, and as many as targets"
        )
    return settings, study
