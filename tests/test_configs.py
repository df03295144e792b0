"""Every YAML composes, and what it composes to is a study; no file can be forgotten."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from stepscope.analysis.commands import expand
from stepscope.analysis.metrics import METRICS
from stepscope.probes.adapters import ADAPTERS
from stepscope.probes.composing import composed
from tests.shell import study_of

CONF = Path(__file__).parents[1] / "conf"
GROUPS = ("backbone", "adapter", "record", "experiment")
MEMBERS = [(group, path.stem) for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]
EXPERIMENTS = [name for group, name in MEMBERS if group == "experiment"]
PAPER: Any = OmegaConf.to_container(OmegaConf.load(CONF / "paper.yaml"))
OF_ANY = [name for name in EXPERIMENTS if "overrides" not in PAPER["study"][name]]
"""Experiments that run on any models' backbones and adapter; others name their own."""
FACE, PROMPT = "faces=[face.npy]", "prompts=[a man]"


def at_the_head(experiment: str, verb: str) -> list[list[str]]:
    """The words of each command of this verb in the comment at the head of an experiment."""
    head = re.match("(#.*\n)+", (CONF / "experiment" / f"{experiment}.yaml").read_text())
    assert head
    lines = re.sub(r"\\\n#\s*", "", head[0])
    return [shlex.split(said) for said in re.findall(rf"stepscope {verb} (.+)", lines)]


def of_its_own(group: str, name: str) -> list[str]:
    """The backbone and the adapter of an experiment that runs on no others."""
    if group != "experiment" or name in OF_ANY:
        return []
    words = at_the_head(name, "probe")[0]
    return [word.split(",")[0] for word in words if word.startswith(("backbone=", "adapter="))]


def backbone_for(adapter: str) -> str:
    """A backbone that an adapter is made for."""
    families = {kind.KIND: kind.FAMILIES for kind in ADAPTERS}
    own = families.get(kind_of(adapter), ("flux",))
    return "flux_dev" if "flux" in own else own[0]


def kind_of(adapter: str) -> str:
    """What an adapter's file names as its kind; empty for none."""
    told: Any = OmegaConf.load(CONF / "adapter" / f"{adapter}.yaml")
    return told.get("kind", "") if told else ""


def named(group: str, name: str) -> list[str]:
    own = of_its_own(group, name)
    words = [FACE, *(own or ["adapter=infusenet"]), f"{group}={name}"]
    if group == "backbone":
        words.remove("adapter=infusenet")
    elif not own:
        words.append(f"backbone={backbone_for(name) if group == 'adapter' else 'flux_dev'}")
    if (group, name) == ("adapter", "lora"):
        words.append("adapter.path=a.safetensors")
    if group == "adapter" and kind_of(name) == "instantid":
        words.append("control_image=pose.png")
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


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_commands_at_the_head_of_an_experiment_are_studies_as_typed(experiment):
    for words in at_the_head(experiment, "probe"):
        assert words.pop(0) == "-m"
        assert all(study_of(one).faces for one in expand(shlex.join(words)))
    for _, *words in at_the_head(experiment, "measure"):
        (metrics,) = (word.removeprefix("metrics=").strip("[]") for word in words)
        assert {*metrics.split(",")} <= METRICS.keys()


def test_the_study_runs_each_experiment_on_any_models_or_on_those_of_its_head():
    assert PAPER["study"].keys() == {*EXPERIMENTS}
    for i, models in enumerate(("full", "pocket")):
        study = composed([f"models={models}"], "paper")["study"]
        for name in {*EXPERIMENTS} - {*OF_ANY}:
            own, values = at_the_head(name, "probe")[i], study[name]
            assert {*shlex.split(values["lines"][0]), *values["overrides"]} <= {*own}


@pytest.mark.parametrize("models", sorted((CONF / "models").glob("*.yaml")), ids=lambda p: p.stem)
@pytest.mark.parametrize("experiment", OF_ANY)
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
        said = [line for line in path.read_text().splitlines()[:2] if "@package" not in line]
        assert said[0].startswith("# "), path
        assert said[0].endswith("."), path
