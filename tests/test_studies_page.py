"""docs/studies.md: its study is one, and its tables have every key, word and named study."""

import re
import shlex
from dataclasses import fields
from pathlib import Path
from typing import get_args

import yaml

from stepscope.analysis.metrics import METRICS
from stepscope.probes.interventions.part import Do, Donor, Part
from stepscope.probes.interventions.study import CausalStudy
from stepscope.probes.interventions.windows import Word
from stepscope.probes.usage import settings

PAGE = Path("docs/studies.md").read_text()


def snippet(kind: str) -> str:
    (found,) = re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return found


def test_the_study_of_the_page_is_one_of_under_thirty_lines():
    study = CausalStudy.from_config({"edit": yaml.safe_load(snippet("yaml"))})
    assert [part.donor for part in study.parts] == ["other", "same"]
    assert len(snippet("yaml").splitlines()) < 30


def test_every_key_and_word_of_a_part_is_on_the_page():
    words = {field.name for field in fields(Part)} - {"name"}
    words |= {*get_args(Do), *get_args(Donor), *get_args(Word)}
    assert {word for word in words if f"`{word}`" not in PAGE} == set()


def test_every_named_study_is_on_the_page():
    named = settings("intervene").groups["edit"]
    assert {name for name in named if f"`edit={name}`" not in PAGE} == set()


def test_the_commands_name_keys_and_metrics_that_are_there():
    keys = {*settings("intervene", ["edit=transplant"]).keys, "edit"}
    for line in snippet("sh").splitlines():
        _, verb, _, *words = shlex.split(line, comments=True)
        given = [word.partition("=") for word in words if "=" in word]
        if verb == "intervene":
            assert {key for key, _, _ in given} <= keys
        else:
            assert {name for _, _, v in given for name in v.strip("[]").split(",")} <= set(METRICS)
