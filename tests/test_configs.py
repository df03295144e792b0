"""Every YAML composes, and what it composes to is a study; no file can be forgotten."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from tests.shell import study_of

CONF = Path(__file__).parents[1] / "conf"
GROUPS = ("backbone", "adapter", "record", "experiment")
MEMBERS = [(group, path.stem) for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]
EXPERIMENTS = [name for group, name in MEMBERS if group == "experiment"]
FACE, PROMPT = "faces=[face.npy]", "prompts=[a man]"


def named(group: str, name: str) -> list[str]:
    words = [FACE, "adapter=infusenet", f"{group}={name}"]
    if group != "backbone":
        words.append("backbone=flux_dev")
    if group != "experiment":
        words.append(PROMPT)
    if (group, name) == ("record", "full"):
        words.append("record.sites=['double.*.attention.image']")
    if group == "adapter":
        words.remove("adapter=infusenet")
    return words


@pytest.mark.parametrize(("group", "name"), MEMBERS)
def test_member_of_a_group_composes_to_a_study(group, name):
    study = study_of(named(group, name))
    assert study.steps > 0
    if group in ("backbone", "adapter"):
        part = getattr(study, group)
        assert (part.name if part is not None else "none") == name
    if group == "experiment":
        assert all(study.prompts)


@pytest.mark.parametrize("models", sorted((CONF / "models").glob("*.yaml")), ids=lambda p: p.stem)
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_backbones_that_are_compared_read_texts_of_equal_length(models, experiment):
    """The text stream holds its padding, so its norms are comparable at equal length alone."""
    told: Any = OmegaConf.to_container(OmegaConf.load(models))
    lengths = {
        study_of(
            [FACE, PROMPT, f"backbone={told[part]}", f"experiment={experiment}", *told["overrides"]]
        ).max_sequence_length
        for part in ("baseline", "swapped")
    }
    assert len(lengths) == 1
    assert max(lengths) <= 256  # what FLUX.1-schnell reads as published


def test_every_file_reads_as_yaml_and_says_what_it_is():
    files = sorted(CONF.rglob("*.yaml"))
    assert len(files) >= len(MEMBERS)
    for path in files:
        assert OmegaConf.load(path) is not None
