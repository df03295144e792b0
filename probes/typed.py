"""What is typed after a command, as the words that Hydra takes: its options first, then its overrides.

A word that is no KEY=VALUE is a run where the command reads runs. Keys are looked up before anything is
composed, so that a mistake is answered with the nearest key of every group.
"""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field

from hydra.core.override_parser.types import Sweep

from stepscope.hooks.errors import StepscopeError, nearest
from stepscope.probes.keys import check_key
from stepscope.probes.quoted import LISTS, TEXTS, listed, parsed, quoted, read_texts, readable
from stepscope.probes.usage import VERBS, configs, flow, named_config, options, says, settings

SWEEP = ("-m", "--multirun")
BARE = (
    *SWEEP,
    "--resolve",
    "--version",
    "--hydra-help",
    "--shell-completion",
    "-sc",
    "--run",
    "-r",
)
VALUED = (
    *("--config-name", "-cn", "--config-dir", "-cd", "--config-path", "-cp"),
    *("--cfg", "-c", "--package", "-p", "--info", "-i", "--experimental-rerun"),
)
"""Hydra's options, alone and with a word behind them."""
NUMBER = r"[-+]?[\d.]+"
_RANGE = 12  # most seeds that a message spells


@dataclass
class _Sorted:
    options: list[str] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    photos: list[str] = field(default_factory=list)


def hydra_words(words: Sequence[str], config_name: str) -> list[str]:
    """The words as Hydra takes them. Raises StepscopeError, in one line, for what cannot be meant."""
    _check_config_name(words, config_name)
    words = [one for word in words for one in each_adapter(word)]
    known = settings(config_name, words)
    found = _sort(words, config_name, {*known.keys, *known.groups})
    sweep = bool({*SWEEP} & {*found.options})
    if found.places:
        if any(word.startswith("runs=") for word in found.overrides):
            raise StepscopeError(
                f"runs are named twice: {found.places[0]!r} and runs=...; name them once"
            )
        found.overrides.insert(0, listed("runs", found.places))
    if found.photos:
        found.overrides.append(listed("references", found.photos))
    free = {"--config-dir", "-cd", "--config-path", "-cp"} & {*found.options}  # others' keys
    return found.options + [
        _override(word, config_name, words, sweep=sweep, check=not free) for word in found.overrides
    ]


def each_adapter(word: str) -> list[str]:
    """`adapter=[a,b]` as words of Hydra: `adapter=a`, and `b` beside it below the key `beside.b`.

    Raises StepscopeError for an adapter that is not there.
    """
    found = re.fullmatch(r"adapter=\[(.*)\]", word)
    names = [name.strip(" '\"") for name in found[1].split(",")] if found else []
    if not names:
        return [word]
    for name in names:
        if name not in options("adapter"):
            raise StepscopeError(f"no adapter={name!r}; {nearest(name, options('adapter'))}")
    keys: dict[str, str] = {}
    for name in names[1:]:
        keys[name if name not in keys else f"{name}{len(keys) + 1}"] = name
    return [f"adapter={names[0]}", *(f"+adapter@beside.{key}={n}" for key, n in keys.items())]


def _check_config_name(words: Sequence[str], config_name: str) -> None:
    named, mine = named_config(words), VERBS.get(config_name)
    others = any(word.startswith(("--config-d", "--config-p", "-cd", "-cp")) for word in words)
    if named is not None and named not in configs() and not others:
        same = [name for name in configs() if VERBS.get(name) == mine]
        raise StepscopeError(f"no --config-name {named!r}; {nearest(named, same)}")


def _sort(words: Sequence[str], config_name: str, keys: set[str]) -> _Sorted:
    found, left = _Sorted(), list(words)
    while left:
        word = left.pop(0)
        name, sign, value = word.partition("=")
        if word == "--dry":
            found.overrides.append("dry=true")
        elif name == "--reference" and "references" in keys:
            if not sign and not left:
                raise StepscopeError("--reference has no name: --reference NAME=PHOTO")
            found.photos.append(value if sign else left.pop(0))
        elif name in VALUED:
            found.options += [word] if sign or not left else [word, left.pop(0)]
        elif word in BARE:
            found.options.append(word)
        elif word.startswith("-"):
            raise StepscopeError(_no_option(word, left, keys))
        elif (sign and name) or (word.startswith("~") and "/" not in word):
            found.overrides.append(word)
        elif left[:1] == ["="] or word == "=" or word.startswith("="):
            value = left[1] if len(left) > 1 else "..."
            meant = shlex.quote(f"{word.strip('=')}={value}")
            raise StepscopeError(f"no space stands around =: {meant}")
        elif "runs" in keys:
            found.places.append(word)
        else:
            raise StepscopeError(_no_value(word, config_name, keys))
    return found


def _no_option(word: str, left: Sequence[str], keys: set[str]) -> str:
    name, sign, value = word.lstrip("-").partition("=")
    if name in keys:
        value = value if sign else (left[0] if left else "...")
        return f"no option {word!r}: keys stand without dashes, {shlex.quote(f'{name}={value}')}"
    options = ["--dry", "-m", "-h", "--cfg", "--config-name"]
    options += ["--reference"] if "references" in keys else []
    return f"no option {word!r}; {nearest(word.partition('=')[0], options)}"


def _no_value(word: str, config_name: str, keys: set[str]) -> str:
    if word in keys:
        return f"{word!r} has no value: {word}=..."
    if word.endswith((".png", ".jpg", ".jpeg", ".webp", ".npy")) and "faces" in keys:
        return f"{word!r} is no KEY=VALUE: a face is named by {shlex.quote(f'faces=[{word}]')}"
    if word.rstrip("/").endswith(".zarr"):
        return (
            f"{word!r} is no KEY=VALUE: out={word} says where the run lies; to measure one, "
            f"{says('measure')} {word}"
        )
    verb = VERBS.get(config_name, "probe")
    return f"{word!r} is no KEY=VALUE: {says(verb)} -h lists the keys"


def _override(
    word: str, config_name: str, words: Sequence[str], *, sweep: bool, check: bool
) -> str:
    """One override: its key checked, its texts read as they were typed."""
    plus = re.match(r"\+{0,2}", word)
    assert plus is not None
    sign, rest = plus[0], word[plus.end() :]
    key = rest.partition("=")[0].lstrip("~")
    if check:
        known = check_key(key, config_name, words)
        sign = "" if known else sign  # Hydra appends what is not there yet
    if rest.startswith("~"):
        return word
    value = rest.partition("=")[2]
    if key == "faces" and VERBS.get(config_name) == "paper" and re.fullmatch(NUMBER, value.strip()):
        return sign + rest  # so many portraits, not one of that name
    text = read_texts(at_home(rest), sweep=sweep)
    found = parsed(text)
    if isinstance(found, Sweep) and not sweep:
        raise StepscopeError(_sweep(rest, key, value, settings(config_name, words)))
    if readable(text):
        return sign + text
    return f"{sign}{key}={quoted(value)}"  # what the key takes says more than the grammar


def _sweep(word: str, key: str, value: str, known: object) -> str:
    """What to type in place of a sweep without `-m`."""
    each = f"-m {shlex.quote(word)} makes a run of each"
    default = getattr(known, "keys", {}).get(key)
    if default is None or not isinstance(default.value, list) or key in (*LISTS, *TEXTS):
        return f"{word}: {key} takes one value; {each}"
    span = re.fullmatch(r"range\((-?\d+),\s*(-?\d+)\)", value.strip())
    if span is not None and 0 < int(span[2]) - int(span[1]) <= _RANGE:
        value = flow(list(range(int(span[1]), int(span[2]))))
    elif "(" in value:
        return f"{word}: {each}; a list is {shlex.quote(f'{key}=[...]')}"
    meant = shlex.quote(f"{key}=[{value.strip('[]')}]")
    return f"{word}: a list is {meant}; {each}"


def at_home(word: str) -> str:
    """A word in which `~/runs/a.zarr` is quoted: shells leave it after `=`, and Hydra reads no `~`.

    A word with quotes of its own is left as it is, and so is one that begins with `~`, Hydra's sign to
    delete a key.
    """
    if any(sign in word for sign in "'\"\\"):
        return word
    return re.sub(r"(?<=[=\[,])(~[^,\[\]]*)", r"'\1'", word)
