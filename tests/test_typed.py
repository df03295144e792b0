"""What is typed after a command: read as it was meant, or one line with the form that works when pasted."""

import re
import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from stepscope.hooks.errors import StepscopeError
from stepscope.probes.quoted import quoted, read_texts
from stepscope.probes.typed import hydra_words
from stepscope.probes.usage import usage

SIGNS = st.sampled_from(list("ab ,'\"\\[]{}()=$%:;!#&*~`|<>?@é中1e-."))
TEXTS = st.text(SIGNS | st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=12)


def prompts(word: str) -> list[str]:
    """What Hydra and OmegaConf make of an override of `prompts`."""
    config = OmegaConf.create({"prompts": []})
    OmegaConf.update(config, "prompts", OverridesParser.create().parse_override(word).value())
    found = OmegaConf.to_container(config, resolve=True)
    assert isinstance(found, dict)
    return found["prompts"] if isinstance(found["prompts"], list) else [found["prompts"]]


@settings(max_examples=400, deadline=None)
@given(text=TEXTS | st.text(st.sampled_from("${}\\\"' a"), min_size=1))
@example(text="a \\${person}\\")
def test_a_quoted_text_is_that_text(text):
    assert prompts(f"prompts=[{quoted(text)}]") == [text]


@settings(max_examples=600, deadline=None)
@given(text=TEXTS.map(str.strip).filter(lambda t: t and "${" not in t), bare=st.booleans())
@example(text="a man's portrait (detailed:1.2) {x} = 50% $5", bare=False)
@example(text="it's a man, cinematic", bare=False)
@example(text="1e3", bare=True)
def test_a_prompt_is_read_as_it_is_typed_or_answered_with_the_form_that_is_it(text, bare):
    """Commas part a list, and quotes and backslashes are Hydra's where it can read them."""
    listed = bare and text.startswith("[") and text.endswith("]")
    wanted = text[1:-1].strip() if listed else text
    answer = read_or_told(f"prompts={text}" if bare else f"prompts=[{text}]")
    form = re.search(r" as one, (.*?)(?:; as \d+, .*)?$", answer, re.DOTALL)
    (word,) = shlex.split(form[1]) if form is not None else [answer]
    split = [part.strip() for part in wanted.split(",")]
    found = prompts(word)
    assert found == [wanted] or (form is None and found == split) or odd(wanted) or listed


def read_or_told(word: str) -> str:
    try:
        return read_texts(word, sweep=False)
    except StepscopeError as error:
        return str(error)


def odd(text: str) -> bool:
    """Whether quotes and backslashes in it are Hydra's own signs."""
    return bool(set(text) & {*"\"'\\"}) and read_or_told(f"prompts=[{text}]") == f"prompts=[{text}]"


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("prompts=[a man's portrait]", ["a man's portrait"]),
        ("prompts=it's", ["it's"]),
        ("prompts=[portrait of a man, cinematic]", ["portrait of a man", "cinematic"]),
        ("prompts=[a {person} = b (x:1.2)]", ["a {person} = b (x:1.2)"]),
        ("prompts=[é, 中文]", ["é", "中文"]),
        ('prompts=[say "hi" now]', ['say "hi" now']),
        ('prompts=["a, b","it\'s"]', ["a, b", "it's"]),
        ("prompts=[1984,true]", ["1984", "true"]),
    ],
)
def test_prompts_of_every_kind(typed, read):
    (word,) = hydra_words([typed], "config")
    assert prompts(word) == read


MISTAKES = {
    "prompts=a photo, of a man": "as one, 'prompts=[\"a photo, of a man\"]'; as 2, ",
    "prompts=[it's a man, grey]": "as one, 'prompts=[\"it'\"'\"'s a man, grey\"]'; as 2, ",
    "prompts=[a man": "as one, 'prompts=[\"[a man\"]'",
    "seeds=0,1": "seeds=0,1: a list is 'seeds=[0,1]'; -m seeds=0,1 makes a run of each",
    "seeds=range(0,4)": "a list is 'seeds=[0,1,2,3]'",
    "steps=1,2": "steps takes one value; -m steps=1,2 makes a run of each",
    "scale=2": "no configuration key 'scale'; did you mean 'adapter.scale'?",
    "adapter.scale=2": "adapter=none has no adapter.scale; adapter=infusenet, adapter=instantid, ",
    "adapter=pocket adapter.sclae=1": "no configuration key 'adapter.sclae'; did you mean 'adapter.scale'",
    "record.sitse=[]": "no configuration key 'record.sitse'; did you mean 'record.sites'",
    "+stepz=1": "no configuration key 'stepz'; did you mean 'steps'",
    "~sedes": "no configuration key 'sedes'; did you mean 'seeds'",
    "adapter=pullid": "no adapter='pullid'; did you mean 'pulid' or 'pocket_pulid'?",
    "--backbone pocket_dev": "no option '--backbone': keys stand without dashes, backbone=pocket_dev",
    "--config-name conifg": "no --config-name 'conifg'; did you mean 'config'?",
    "faces = a.png": "no space stands around =: faces=a.png",
    "a.png": "'a.png' is no KEY=VALUE: a face is named by 'faces=[a.png]'",
    "a.zarr": "to measure one, stepscope measure a.zarr",
    "dry": "'dry' has no value: dry=...",
}


@pytest.mark.parametrize("typed", MISTAKES)
def test_a_mistake_is_told_in_one_line_with_what_would_work(typed):
    words = [typed] if typed.startswith("prompts") else typed.split()
    with pytest.raises(StepscopeError) as error:
        hydra_words(words, "config")
    assert MISTAKES[typed] in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_sweep_is_left_to_itself():
    words = ["seeds=[0]", "steps=1,2", "prompts=a,b"]
    assert hydra_words([*words, "-m"], "config") == ["-m", *words]


def test_words_that_are_no_key_are_runs_and_references_have_names():
    words = [
        "my run (1).zarr",
        "--reference",
        "ada b=ada.jpg",
        "--dry",
        "b.zarr",
        "metrics=[decode]",
    ]
    assert hydra_words(words, "analysis") == [
        'runs=["my run (1).zarr","b.zarr"]',
        "dry=true",
        "metrics=[decode]",
        'references=["ada b=ada.jpg"]',
    ]
    assert hydra_words(["a.zarr"], "reread") == ['runs=["a.zarr"]']
    with pytest.raises(StepscopeError, match="runs are named twice"):
        hydra_words(["a.zarr", "runs=[b.zarr]"], "analysis")


def test_faces_of_a_paper_are_portraits_or_how_many():
    assert hydra_words(["faces=3"], "demo") == ["faces=3"]
    assert hydra_words(["faces=3"], "config") == ['faces=["3"]']
    assert hydra_words(["faces=[3]"], "paper") == ['faces=["3"]']


@pytest.mark.parametrize("name", ["config", "analysis", "reread", "paper", "demo"])
def test_usage_has_two_examples_whose_words_are_read(name):
    text = usage(name)
    assert text.startswith("usage: stepscope ")
    examples = [line.strip() for line in text.partition("\nexamples\n")[2].splitlines()]
    assert len(examples) == 2
    for line in examples:
        _, _, *words = shlex.split(line)
        assert hydra_words(words, name)
