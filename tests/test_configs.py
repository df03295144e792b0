"""Every YAML composes, and what it composes to is a study; no file can be forgotten."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tests.shell import study_of

CONF = Path(__file__).parents[1] / "conf"
GROUPS = ("backbone", "adapter", "record", "experiment")
MEMBERS = [(group, path.stem) for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]
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


def test_every_file_reads_as_yaml_and_says_what_it_is():
    files = sorted(CONF.rglob("*.yaml"))
    assert len(files) >= len(MEMBERS)
    for path in files:
        assert OmegaConf.load(path) is not None
