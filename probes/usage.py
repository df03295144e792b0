"""What may be typed after a command: groups with their options, keys with their defaults, two examples.

It reads YAML and imports next to nothing of ours, so that `-h` is answered at once: torch and diffusers
take many seconds to import.
"""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from stepscope.probes.pipe import may_be_cut

HELP = {"-h", "--help"}
SYNOPSIS = {
    "probe": "backbone=NAME adapter=NAME 'faces=[a.jpg]' 'prompts=[\"...\"]' [KEY=VALUE ...]",
    "check": "backbone=NAME adapter=NAME 'faces=[a.jpg]' 'prompts=[\"...\"]' [KEY=VALUE ...]",
    "measure": "RUN.zarr ... [--reference NAME=PHOTO ...] [KEY=VALUE ...]",
    "reread": "RUN.zarr ... [KEY=VALUE ...]",
    "intervene": "RUN.zarr ... edit=NAME [KEY=VALUE ...]",
    "planted": "[seed=NUMBER] [count=NUMBER] [KEY=VALUE ...]",
    "paper": "[models=pocket|full] [--config-name demo] [KEY=VALUE ...]",
}
EXAMPLES = {
    "probe": (
        "backbone=pocket_schnell adapter=pocket 'faces=[pocket/portraits/00_0.png]' "
        "'prompts=[\"portrait photo of a person\"]' --dry",
        "-m backbone=pocket_dev,pocket_schnell adapter=pocket faces=pocket/portraits experiment=main",
    ),
    "check": (
        "backbone=pocket_schnell adapter=none 'prompts=[\"portrait photo of a person\"]'",
        "backbone=flux_dev adapter=infusenet 'faces=[ada.jpg]' 'prompts=[\"a portrait\"]'",
    ),
    "measure": ("runs/a.zarr", "own.zarr --reference ada=ada.jpg 'recognisers=[buffalo_l]'"),
    "reread": ("runs/a.zarr", "runs/a.zarr 'readings=[committed]' 'off_from=[0,2,4]' --dry"),
    "intervene": ("runs/a.zarr edit=transplant --dry", "runs/a.zarr edit=adapter_window every=4"),
    "planted": ("--dry", "seed=1 count=12 out=outputs/others"),
    "paper": ("--config-name demo", "models=full 'faces=[photos]' --dry"),
}
VERBS = {
    "config": "probe",
    "analysis": "measure",
    "reread": "reread",
    "intervene": "intervene",
    "planted": "planted",
    "paper": "paper",
    "demo": "paper",
}
"""The command of each configuration in `conf/`."""
OPTIONS = """\
  --dry        stop after the plan, which says what is missing here
  -m           make several runs: -m a=1,2 makes one with a=1 and one with a=2 (a list is a=[1,2])
  --cfg job    print the configuration that these words make
  -h           this text, with the keys of the groups that are named: adapter=infusenet -h"""
UNSET = "???"
WIDEST = 80  # letters of a default


def says(verb: str) -> str:
    """A command as messages name it: `stepscope measure`."""
    return f"stepscope {verb}"


@dataclass(frozen=True)
class Key:
    """A key of the configuration: its default as YAML has it, its comment, the words that bring it."""

    value: Any
    comment: str
    source: str = ""


@dataclass
class Settings:
    """What a configuration knows. groups: their options. chosen: of each. keys: by their full names.

    summary: the comment at the head of the file.
    """

    summary: str = ""
    groups: dict[str, list[str]] = field(default_factory=dict)
    chosen: dict[str, str | None] = field(default_factory=dict)
    keys: dict[str, Key] = field(default_factory=dict)


def asks_for_help(words: Sequence[str]) -> bool:
    return bool(HELP & {*words})


def answer_help(config_name: str, verb: str | None = None) -> None:
    """Print the usage and end the process with 0 where this process was asked for help.

    Called by entry modules before they import what takes seconds.
    """
    if asks_for_help(sys.argv[1:]):
        with may_be_cut():
            print(usage(config_name, sys.argv[1:], verb))
        raise SystemExit(0)


def usage(config_name: str, words: Sequence[str] = (), verb: str | None = None) -> str:
    """The text of `-h`: keys of the groups that the words choose, options, two examples.

    config_name: a file of `conf/`, unless the words name another with `--config-name`. verb: of the
    command, where two commands share a configuration.
    """
    known = settings(config_name, words)
    verb = verb or VERBS.get(config_name, config_name)
    lines = [f"usage: {says(verb)} {SYNOPSIS[verb]}", "", known.summary, ""]
    width = max((len(group) for group in known.groups), default=0)
    for group, options in known.groups.items():
        chosen = known.chosen.get(group)
        default = "" if chosen is None or chosen == UNSET else f"   ({chosen})"
        lines.append(f"  {group:<{width}} = {' | '.join(options)}{default}")
    source = ""
    lines += [""] if known.groups and known.keys else []
    for name, key in known.keys.items():
        if key.source != source:
            source = key.source
            lines += ["", f"  of {source}"]
        text = f"  {name}={shortened(key.value)}"
        lines.append(f"{text:<34}  # {key.comment}" if key.comment else text)
    return "\n".join(
        [*lines, "", OPTIONS, "", "examples", *(f"  {says(verb)} {e}" for e in EXAMPLES[verb])]
    )


def shortened(value: Any) -> str:
    """A default in one short line."""
    text = "(named by the backbone)" if value == UNSET else flow(value)
    return text if len(text) <= WIDEST else f"{text[:WIDEST]}…"


def flow(value: Any) -> str:
    """A value as one would type it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(flow, value))}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{k}: {flow(v)}' for k, v in value.items())}}}"
    return str(value)


def settings(config_name: str, words: Sequence[str] = ()) -> Settings:
    """The keys of a configuration, with those of the groups' options that the words choose."""
    chosen = {}
    for word in words:
        key, sign, value = word.partition("=")
        if sign:
            chosen[key.lstrip("+")] = value.split(",")[0]
    found = Settings()
    _add_file(found, named_config(words) or config_name, chosen)
    for group, option in found.chosen.items():
        if option in found.groups[group]:
            text = _read(group, str(option))
            under = "" if text.startswith("# @package _global_") else group
            _add_keys(found, text, under, f"{group}={option}")
    for key, option in chosen.items():
        group, at, under = key.partition("@")
        if at and group in found.groups and option in found.groups[group]:
            _add_keys(found, _read(group, option), under, f"{group}={option}")
    return found


def named_config(words: Sequence[str]) -> str | None:
    """The configuration that `--config-name` names."""
    for place, word in enumerate(words):
        if word in ("--config-name", "-cn"):
            return "".join(words[place + 1 : place + 2]).removesuffix(".yaml")
        if word.startswith("--config-name="):
            return word.partition("=")[2].removesuffix(".yaml")
    return None


def configs() -> list[str]:
    """The configurations that a command may be given by `--config-name`."""
    folder = files("stepscope.conf")
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if _is_yaml(f.name))


def options(group: str) -> list[str]:
    """The options of a group of `conf/`."""
    folder = files("stepscope.conf") / group
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if _is_yaml(f.name))


def options_with(config_name: str, key: str) -> list[str]:
    """The words, such as `adapter=pocket`, of which each brings a key that is not there otherwise."""
    known = settings(config_name)
    found = []
    for group, names in known.groups.items():
        for name in names:
            mine = settings(config_name, [f"{group}={name}"]).keys
            if key in mine and mine[key].source == f"{group}={name}":
                found.append(f"{group}={name}")
    return found


def _is_yaml(name: str) -> bool:
    return name.endswith(".yaml")


def _read(*names: str) -> str:
    place = files("stepscope.conf").joinpath(*names[:-1], f"{names[-1]}.yaml")
    return place.read_text(encoding="utf-8")


def _add_file(found: Settings, name: str, chosen: Mapping[str, str]) -> None:
    """A configuration of `conf/`, after those that it is based on."""
    if name not in configs():
        return
    text = _read(name)
    head = [line for line in text.splitlines()[:4] if line.startswith("#")]
    for default in _values(text).get("defaults", []):
        if isinstance(default, str) and default != "_self_":
            _add_file(found, default, chosen)
        for group, option in default.items() if isinstance(default, dict) else ():
            if not group.startswith("override"):
                found.groups[group] = options(group)
                found.chosen[group] = chosen.get(group, option)
    found.summary = " ".join(line.lstrip("# ") for line in head)
    _add_keys(found, text, "", "")


def _add_keys(found: Settings, text: str, under: str, source: str) -> None:
    comments = _comments(text)
    for name, value in _flat(_values(text)):
        if name.split(".")[0] in ("defaults", "hydra"):
            continue
        full = f"{under}.{name}" if under else name
        if source and full in found.keys and not under:  # an experiment or backbone sets a key
            old = found.keys.pop(full)
            found.keys[full] = Key(value, comments.get(name) or old.comment, source)
        else:
            found.keys[full] = Key(value, comments.get(name, ""), source)


def _flat(values: Mapping[str, Any], under: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        name = f"{under}{key}"
        if isinstance(value, dict) and value and all(re.fullmatch(r"\w+", str(k)) for k in value):
            yield from _flat(value, f"{name}.")
        else:
            yield name, value


@cache
def _values(text: str) -> Mapping[str, Any]:
    """What a YAML says. Each word that is typed looks into the same dozen files."""
    return yaml.safe_load(text) or {}


@cache
def _comments(text: str) -> Mapping[str, str]:
    """The comment on the line of each key, by its full name."""
    found: dict[str, str] = {}
    stack: list[tuple[int, str]] = []
    for line in text.splitlines():
        match = re.match(r"^( *)(\w+):(.*?)(?:\s#\s(.*))?$", line)
        if match is None:
            continue
        indent, name, _, comment = match.groups()
        stack = [one for one in stack if one[0] < len(indent)] + [(len(indent), name)]
        if comment:
            found[".".join(word for _, word in stack)] = comment
    return found
