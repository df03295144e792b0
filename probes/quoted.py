"""Texts as Hydra reads them: quoted for its grammar and for a shell, and read as they were typed.

A value of a text key, such as a prompt, is taken literally wherever that is the only reading: Hydra's own
grammar has no apostrophe, `=`, parenthesis, brace, or letter beyond ASCII outside quotes, and reads `1e3`
as a number.
"""

import re
import shlex
from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString, Sweep
from hydra.errors import HydraException

from stepscope.hooks.errors import StepscopeError

LISTS = (
    "prompts",
    "faces",
    "runs",
    "references",
    "photos",
    "recognisers",
    "models.faces",
    "models.photos",
)
"""Keys that take a list of texts."""
TEXTS = (
    *("negative_prompt", "out", "control_image", "initial_latents", "vae", "root", "many_step"),
    *(
        "backbone.path",
        "backbone.base",
        "backbone.weights",
        "adapter.path",
        "adapter.encoder",
        "adapter.clip",
        "adapter.parsing",
        "adapter.detector",
        "adapter.detector_root",
    ),
)
"""Keys that take one text."""
_UNREAD = object()


def quoted(text: str) -> str:
    """A text in quotes, of which Hydra and OmegaConf make the same text."""
    kept = re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + r"\${", text)  # no interpolation
    return QuotedString(kept, Quote.double).with_quotes()


def listed(key: str, texts: Sequence[str]) -> str:
    """The override that gives a key these texts."""
    return f"{key}=[{','.join(map(quoted, texts))}]"


def read_texts(word: str, *, sweep: bool) -> str:
    """An override of a text key, changed where Hydra would not read what was typed.

    sweep: whether `a=x,y` is a run of each. Raises StepscopeError, with forms that work in a shell, where
    the words can be meant in two ways.
    """
    key, _, value = word.partition("=")
    if key in TEXTS:
        return _read_one(key, value, sweep=sweep)
    if key not in LISTS:
        return word
    text = value.strip()
    bracketed = text.startswith("[") and text.endswith("]")
    inner = (text[1:-1] if bracketed else text).strip()
    found, plain = parsed(word), not set(inner) & {'"', "'", "\\"}
    if isinstance(found, Sweep):
        if sweep or "(" in text:
            return word
        raise StepscopeError(_both(word, key, inner, "is a sweep, which only -m makes"))
    texts = [part.strip() for part in inner.split(",")]
    if key == "references" and _is_mapping(found):
        return word
    if found is not _UNREAD:
        elements = found if isinstance(found, list) else [found]
        as_typed = not plain or "${" in text or not inner or elements == texts
        if all(isinstance(one, str) for one in elements) and as_typed:
            return word
    half = text.startswith("[") != text.endswith("]")
    if len(texts) == 1 and not _broken(inner) and not half:
        return listed(key, texts)
    if (
        plain
        and all(texts)
        and not half
        and not set(inner) & set("()[]{}")
        and (bracketed or not sweep)
    ):
        return listed(key, texts)
    raise StepscopeError(_both(word, key, inner, "can be read in two ways"))


def split_by_commas(word: str) -> str:
    """That a list of prompts without quotes is read as several, and the form of one; empty for others.

    Only of a list in which a blank follows a comma, as in a sentence.
    """
    key, _, value = word.partition("=")
    text = value.strip()
    inner = text[1:-1].strip()
    if key != "prompts" or (text[:1], text[-1:]) != ("[", "]") or set(inner) & {'"', "'", "\\"}:
        return ""
    if not re.search(r",\s", inner):
        return ""
    count, one = len(inner.split(",")), shlex.quote(listed(key, [inner]))
    return f"{word} is {count} prompts, parted by its commas; as one, {one}"


def parsed(word: str) -> Any:
    """The value of an override as Hydra reads it: a value, a Sweep, or `_UNREAD`."""
    try:
        return OverridesParser.create().parse_override(word).value()
    except HydraException:
        return _UNREAD


def readable(word: str) -> bool:
    return parsed(word) is not _UNREAD


def _read_one(key: str, value: str, *, sweep: bool) -> str:
    found = parsed(f"{key}={value}")
    if found is None or isinstance(found, str | list) or (sweep and isinstance(found, Sweep)):
        return f"{key}={value}"
    return f"{key}={quoted(value.strip())}"


def _is_mapping(found: Any) -> bool:
    return isinstance(found, dict) or (
        isinstance(found, list) and any(isinstance(one, dict) for one in found)
    )


def _broken(text: str) -> bool:
    """Whether a text begins or ends with a quote, that Hydra found no other for."""
    return text[:1] in ("'", '"') or text[-1:] in ("'", '"')


def _both(word: str, key: str, inner: str, why: str) -> str:
    """The forms that give one text, and several."""
    one = shlex.quote(listed(key, [inner]))
    parts = [part.strip().strip("\"'") for part in inner.split(",")]
    parts = [part for part in parts if part]
    if len(parts) < 2:
        return f"{word} cannot be read: as one, {one}"
    several = shlex.quote(listed(key, parts))
    return f"{word} {why}: as one, {one}; as {len(parts)}, {several}"
