"""Effects of steered parts: one share each, and what the part did in words."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stepscope.analysis.causal.effects import effects, study_of
from stepscope.analysis.evidence import Evidence
from stepscope.analysis.interventions import INTERVENTION

GROUPS = ("given", "taken", "to another person")
"""A direction is added to the run without the adapter, or subtracted from the run with it: the share of the
own identity that there is. The difference of two people is added to one's run: the share of the way."""


@dataclass(frozen=True)
class Share:
    """A part's share with its interval, NaN where it is blank. label: which direction, how often."""

    group: str
    label: str
    share: float
    low: float
    high: float


def shares(evidence: Evidence, study: str, backbone: str) -> list[Share]:
    """The shares of a study's steered parts that have one cell, in the order of its file.

    Raises MissingEvidenceError where the study was not made.
    """
    made, found = study_of(evidence, study, backbone), []
    there = set(made["part"].values.tolist())
    for part in made.attrs[INTERVENTION]["parts"]:
        if part["do"] != "steer" or part["name"] not in there:
            continue
        effect = effects(evidence, study, backbone, part["name"])
        if effect.sizes["cell"] != 1:
            continue
        group = group_of(part)
        word = "gained" if group == GROUPS[2] else "kept"
        values = [float(effect[word + end][0]) for end in ("", "_low", "_high")]
        found.append(Share(group, label(part), *values))
    return found


def group_of(part: Mapping[str, Any]) -> str:
    """What a part asks, one of `GROUPS`."""
    if part["along"] == "other":
        return GROUPS[2]
    return GROUPS[0] if part["to"] >= 0 else GROUPS[1]


def label(part: Mapping[str, Any]) -> str:
    """A part's direction in words, where it is added, and how often."""
    whose = {"adapter": "other people's", "other": "difference", "person": "own"}[part["along"]]
    if part.get("donor") == "other":
        whose = "the next person's"
    words = [
        "random" if part.get("donor") == "random" else whose,
        "pooled" if part.get("pooled") else "",
        "learned on the baseline" if part.get("learned") else "",
        " ".join(at(site) for site in part["sites"] if site != "*.adapter"),
    ]
    return f"{', '.join(word for word in words if word)} x {abs(part['to']):g}"


def at(site: str) -> str:
    """A site of an image stream as figures call it: `s00 residual`."""
    short = site.replace("double.", "d").replace("single.", "s").removesuffix(".image")
    return short.replace(".", " ")
