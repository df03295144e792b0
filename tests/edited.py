"""Causal studies with known answers, as `stepscope measure` leaves them: every part of conf/edit."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from stepscope.hooks.edits.sites import Sites
from stepscope.probes.composing import composed
from stepscope.probes.intervene import sites_of
from stepscope.probes.interventions.names import ANCHOR
from stepscope.probes.interventions.planned import counted, donors_of
from stepscope.probes.interventions.store import said
from stepscope.probes.interventions.study import CausalStudy
from tests.shell import infused, study_of

STUDIES = tuple(sorted(path.stem for path in Path("conf/edit").glob("*.yaml")))
OWN, LEFT, OTHER, REACHED = 0.8, 0.1, 0.05, 0.7
"""Cosines: of the sample and its donor's run to the own person, and to the donor."""

Row = Mapping[str, Any]


def measured_study(rows: Sequence[Row], sigma: Sequence[float] = ()) -> xr.Dataset:
    """A measured run of edited samples.

    rows: labels, the cosines `own` and `to_donor`, and `clamped`, whether x0 has the same ones.
    """
    n = len(rows)
    values = np.full((n, 2, 1, 2), np.nan, np.float32)
    values[:, 0, 0] = [[row["own"], row["to_donor"]] for row in rows]
    found = np.zeros((n, 2, 1), np.int8)
    found[:, 0] = 1
    for i, row in enumerate(rows):
        if row.get("clamped"):
            values[i, 1], found[i, 1] = values[i, 0], 1
    words = (
        "part",
        "donor",
        "do",
        "steps",
        "at",
        "at_sigma",
        "blocks",
        "at_block",
        "face",
        "prompt",
        "seed",
    )
    axes = ("sample", "edited_image", "recogniser")
    return xr.Dataset(
        {
            "edited_similarity": ((*axes, "toward"), values),
            "edited_found": (axes, found),
            "edited_face_found": (axes, found == 1),
            "edited_outside": (("sample",), np.linspace(0, 1, n)),
            "prompt_obeyed": (("sample",), np.full(n, 0.5)),
            "prompt_obeyed_before": (("sample",), np.full(n, 0.75)),
        },
        coords={
            **{word: ("sample", np.array([row[word] for row in rows])) for word in words},
            "edited_image": ["final", "clamped"],
            "recogniser": ["pocket"],
            "conditioning": ("recogniser", [False]),
            "toward": ["own", "donor"],
            "step": np.arange(len(sigma)),
            "sigma": ("step", np.array(sigma, float)),
        },
    )


@cache
def sites() -> Sites:
    return sites_of(study_of(infused("dev", faces="[ann.npy]")))


def row(face: str, part: str, donor: str, own: float, to_donor: float, **more: Any) -> Row:
    none = {"do": "", "steps": "", "at": 0, "at_sigma": 0.0, "blocks": "", "at_block": ""}
    labels = {"face": face, "prompt": "p", "seed": 0, "part": part, "donor": donor}
    return none | labels | {"own": own, "to_donor": to_donor} | more


def causal_study(name: str, faces: Sequence[str], steps: int) -> xr.Dataset:
    """The study of a file in conf/edit: what is edited later in the run moves less."""
    config = composed([f"edit={name}"], "intervene")
    study = CausalStudy.from_config({k: v for k, v in config.items() if k != "runs"})
    sigma, rows = np.linspace(1, 1 / steps, steps), []
    rng = np.random.default_rng(0)
    every = max(1, steps // 4)
    for face in faces:
        lift = 1 + rng.normal(0, 0.05)
        rows.append(row(face, ANCHOR, "", OWN * lift, OTHER))
        rows += [
            row(face, ANCHOR, donor, (OWN if donor == "same" else LEFT) * lift, REACHED)
            for donor in sorted(donors_of(study.parts))
        ]
        rows += [
            row(
                face,
                ANCHOR,
                donor,
                *cosines,
                at=step,
                at_sigma=sigma[step],
                steps="only",
                clamped=True,
            )
            for step in range(0, steps, every)
            for donor, cosines in (("", (OWN * lift, OTHER)), ("other", (LEFT * lift, REACHED)))
        ]
        for part in study.parts:
            for one in part.interventions(sites(), steps, every):
                share = (1 - one.at / steps) * len(one.steps) / steps
                share *= 0.1 if part.donor in ("same", "random") else 1
                share = 1 - share if part.do == "steer" and one.without else share
                noise = rng.normal(0, 0.01, 2)
                rows.append(
                    row(
                        face,
                        part.name,
                        counted(part),
                        OWN - share * (OWN - LEFT) + noise[0],
                        OTHER + share * (REACHED - OTHER) + noise[1],
                        do=part.do,
                        steps=part.steps,
                        at=one.at,
                        at_sigma=sigma[one.at],
                        blocks=part.blocks,
                        at_block=one.block,
                        clamped=part.clamped,
                    )
                )
    return measured_study(rows, sigma.tolist()).assign_attrs(intervention=said(study))


@cache
def causal_evidence(faces: Sequence[str]) -> dict[tuple[str, str], xr.Dataset]:
    """Every study, on both pocket backbones."""
    return {
        (name, backbone): causal_study(name, faces, steps)
        for name in STUDIES
        for backbone, steps in (("pocket_dev", 28), ("pocket_schnell", 4))
    }


def projections_of(faces: Sequence[str], steps: Sequence[int]) -> xr.Dataset:
    """Projections on directions that tell the adapter more in later blocks, and the face nowhere."""
    cells = [(face, prompt) for face in faces for prompt in "pq"]
    blocks = [f"double.{i:02d}" for i in range(4)] + [f"single.{i:02d}" for i in range(8)]
    endings = ("residual.image", "adapter")
    rng = np.random.default_rng(0)
    shape = len(cells), len(steps), len(blocks) * len(endings)
    rise = np.tile(np.linspace(0, 0.2, len(blocks)), len(endings))
    found = {
        "of_adapter": rise * rng.normal(1, 0.05, shape),
        "of_face": rng.normal(0, 0.01, shape),
    }
    return xr.Dataset(
        {name: (("sample", "learned_step", "site"), values) for name, values in found.items()},
        coords={
            "face": ("sample", [face for face, _ in cells]),
            "prompt": ("sample", [prompt for _, prompt in cells]),
            "seed": ("sample", [0] * len(cells)),
            "learned_step": list(steps),
            "learned_sigma": ("learned_step", [1 - step / 28 for step in steps]),
            "site": [f"{block}.{ending}" for ending in endings for block in blocks],
        },
        attrs={"held_out": ["prompt"]},
    )
