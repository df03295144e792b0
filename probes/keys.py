"""Keys of a configuration, looked up by what was typed: the nearest ones of every group."""

from collections.abc import Iterable, Sequence

from stepscope.hooks.errors import StepscopeError, nearest
from stepscope.probes.usage import Settings, options, options_with, settings

FREE = ("hydra", "places")
"""Keys below which any key may stand."""


def check_key(key: str, config_name: str, words: Sequence[str]) -> bool:
    """Whether a key is there; False where it is none of ours to judge.

    Raises StepscopeError for one that is not there, with the nearest, and with the options that have it.
    """
    known = settings(config_name, words)
    top = key.split(".")[0]
    if top in FREE or "@" in key or top.startswith("hydra/"):
        return top == "places"
    for group in known.groups:
        names = _options_in(words, group)
        odd = [name for name in names if name not in (*known.groups[group], "null")]
        if odd and _single(",".join(names)):
            raise StepscopeError(f"no {group}={odd[0]!r}; {nearest(odd[0], known.groups[group])}")
        if odd:  # a pattern of options
            return True
    if key in known.groups or key in known.keys or _above(key, known) or _within(key, known):
        return True
    having = options_with(config_name, key)
    groups = {word.partition("=")[0] for word in having}
    if len(groups) == 1:
        (group,) = groups
        now = known.chosen.get(group)
        if now in (None, "???"):
            raise StepscopeError(f"{key} is a key of {_several(having)}: name one of them")
        have = "have it" if len(having) > 1 else "has it"
        raise StepscopeError(f"{group}={now} has no {key}; {_several(having)} {have}")
    elsewhere = _of_options(config_name, known)
    raise StepscopeError(
        f"no configuration key {key!r}; {nearest_key(key, [*known.groups, *known.keys], elsewhere)}"
    )


def nearest_key(word: str, known: Iterable[str], elsewhere: Iterable[str] = ()) -> str:
    """The closest keys as a phrase: by the whole name, and by the last part of those in groups.

    elsewhere: keys of options that are not chosen, for where no other is close.
    """
    keys, last = list(dict.fromkeys(known)), word.rpartition(".")[2]
    for among in (keys, list(elsewhere)):
        same = [key for key in among if key.rpartition(".")[2] == last]
        if same:
            shortest = sorted(dict.fromkeys(same), key=len)[:3]
            return f"did you mean {' or '.join(map(repr, shortest))}?"
    phrase = nearest(word, keys)
    if phrase.startswith("did you mean") and "." in word:
        return phrase
    ends = {key.rpartition(".")[2]: key for key in reversed([*keys, *elsewhere])}
    close = nearest(last, ends, count=1)
    if close.startswith("did you mean"):
        for end, key in ends.items():
            close = close.replace(repr(end), repr(key))
        if phrase.startswith("did you mean") and close not in phrase:
            return phrase if nearest(word, keys, count=1) == close else _joined(close, phrase)
        return close
    return phrase


def _several(words: Sequence[str]) -> str:
    """`a, b and c`."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def _joined(first: str, second: str) -> str:
    """Two phrases as one, each word once, three at most."""
    words = [
        part.strip("?'")
        for p in (first, second)
        for part in p[len("did you mean ") :].split(" or ")
    ]
    return f"did you mean {' or '.join(map(repr, list(dict.fromkeys(words))[:3]))}?"


def _options_in(words: Sequence[str], group: str) -> list[str]:
    """The options of a group that the words name, the last word holding."""
    values = [w.partition("=")[2] for w in words if w.lstrip("+").startswith(f"{group}=")]
    return [name.strip() for name in values[-1].split(",")] if values else []


def _single(option: str) -> bool:
    return not set(option) & set("(*?[{$")


def _above(key: str, known: Settings) -> bool:
    return any(name.startswith(f"{key}.") for name in known.keys)


def _within(key: str, known: Settings) -> bool:
    """Whether a key lies in a mapping that is a value of ours: `complexity`."""
    parents = [key[:place] for place, letter in enumerate(key) if letter == "."]
    return any(p in known.keys and isinstance(known.keys[p].value, dict) for p in parents)


def _of_options(config_name: str, known: Settings) -> list[str]:
    """Keys of all options of all groups."""
    found: dict[str, None] = {}
    for group in known.groups:
        for option in options(group):
            found |= dict.fromkeys(settings(config_name, [f"{group}={option}"]).keys)
    return list(found)
