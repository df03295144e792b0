"""Entry points in which a user's mistake is one line on standard error, not a traceback."""

import errno
import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import hydra
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    InterpolationResolutionError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from stepscope.hooks.errors import StepscopeError, nearest
from stepscope.probes.pipe import may_be_cut
from stepscope.probes.quoted import quoted, split_by_commas
from stepscope.probes.shortage import memory
from stepscope.probes.typed import SWEEP, hydra_words
from stepscope.probes.usage import asks_for_help, usage

INTERRUPTED = 130  # 128 + SIGINT, as shells have it
COMPOSING = (HydraException, OmegaConfBaseException, MissingConfigException)
Work = Callable[[dict[str, Any]], object]
Together = Callable[[Sequence[str]], object]


@dataclass(frozen=True)
class Entry:
    """A command: a configuration of `conf`, and the work that is done with its values.

    together: does a sweep, given its overrides; Hydra's own does one run after another, and stops at the
    first that fails.
    """

    config_name: str
    main: Callable[[], object]
    together: Together | None = None

    def __call__(self) -> object:
        return self.main()


def command(entered: Callable[[], Any]) -> int:
    """Run an entry point; returns the process's exit status: 0, or 2 for a mistake in what was typed."""
    # Hydra raises its errors instead of printing them
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    typed = sys.argv[1:]
    name = entered.config_name if isinstance(entered, Entry) else "config"
    try:
        if asks_for_help(typed):
            with may_be_cut():
                print(usage(name, typed))
            return 0
        sys.argv[1:] = words = hydra_words(typed, name)
        for note in filter(None, map(split_by_commas, typed)):
            print(f"note: {note}")
        sweep = swept(words) if isinstance(entered, Entry) and entered.together else None
        if sweep is not None and isinstance(entered, Entry) and entered.together:
            together = entered.together
            job(lambda: together(sweep))
        else:
            entered()
    except StepscopeError as error:
        return _say(str(error))
    except COMPOSING as error:
        return _say(composition(error, typed))
    return 0


def swept(words: Sequence[str]) -> list[str] | None:
    """The overrides of a sweep that needs nothing of Hydra's own: no launcher, pattern or job number."""
    overrides = [word for word in words if word not in SWEEP]
    own = any(w.startswith("-") or w.lstrip("+").startswith("hydra") for w in overrides)
    own = own or any("glob(" in word or "${hydra" in word for word in overrides)
    return None if own or len(overrides) == len(words) else overrides


def entry(config_name: str, work: Work, together: Together | None = None) -> Entry:
    """The entry point of a configuration of `conf`: does `work` with its values, as `job`."""

    @hydra.main(version_base="1.3", config_path="pkg://stepscope.conf", config_name=config_name)
    def main(config: DictConfig) -> None:
        def composed() -> None:
            values: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
            work(values)

        job(composed)

    return Entry(config_name, main, together)


def job(work: Callable[[], object]) -> None:
    """Run an entry point; a mistake that the user can fix ends the process with one line, status 2.

    Ctrl-C ends it with 130. Called inside Hydra's main function, which would add lines of its own
    to an exception that passes through it.
    """
    try:
        with may_be_cut():
            work()
    except KeyboardInterrupt:
        line = "stopped; the samples finished so far are kept: the same command continues"
        raise SystemExit(_say(line, INTERRUPTED)) from None
    except Exception as error:
        line = mistake(error)
        if line is None:
            raise
        raise SystemExit(_say(line)) from None


def mistake(error: Exception) -> str | None:
    """How the user can fix an error, in one line; None for a fault of ours."""
    if isinstance(error, StepscopeError):
        return str(error)
    if isinstance(error, COMPOSING):  # or a value that only a resolved configuration misses
        return composition(error, sys.argv[1:])
    where = memory(error)  # torch.OutOfMemoryError is a RuntimeError
    if where is not None:
        return f"out of {where}: lower batch_size, height and width, or use record=norms"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "the disk is full: make room, the same command continues"
    if isinstance(error, PermissionError) and error.filename is not None:
        return f"{error.filename} cannot be written: {error.strerror}; name another out="
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.strerror or error}: {error.filename}"
    return None


def composition(error: Exception, words: Sequence[str] = ()) -> str:
    """Hydra's and OmegaConf's errors in one line, with the nearest key or option."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        return f"no {group}={name!r}; {nearest(name, error.options)}"
    if isinstance(error, MissingMandatoryValue):
        key = getattr(error, "full_key", None) or str(error).rsplit(" ", 1)[-1]
        sites = "; \"record.sites=['*']\" --dry lists all" if key == "record.sites" else ""
        return f"{key} is not set: name {key}=...{sites}"
    text = str(error).strip()
    if isinstance(error, InterpolationResolutionError) or "interpolation" in text.lower():
        return _interpolation(text, words)
    if match := re.search(r"You must specify '(\w+)'", text):
        options = re.findall(r"^\t(\S+)$", text, re.MULTILINE)
        return f"{match[1]} is not set; known: {', '.join(options)}"
    if match := re.search(r"Could not override '([^']+)'", text):
        if match[1] in text.partition("\n")[2] or not _keys(error):
            return f"{match[1]} cannot be set so: it is no group of keys, or takes one value"
        return f"no configuration key {match[1]!r}; {nearest(match[1], _keys(error))}"
    if match := re.search(r"Error merging override ([^=\s]+)=(\{.*\})", text):
        return f"{match[1]} takes a list: {match[1]}=[{match[2]}]"
    if match := re.search(r"Could not delete from config[^']*'([^']+)'", text):
        return f"~{match[1]} leaves out what is not there"
    return text.splitlines()[0]


def _interpolation(text: str, words: Sequence[str]) -> str:
    """A `${...}` of a word that stands for nothing, and the form in which it is text."""
    for word in words:
        key, _, value = word.partition("=")
        if "${" in value:
            inner = value.strip("[]\"'")
            kept = f"{key}=[{quoted(inner)}]" if value.startswith("[") else f"{key}={quoted(inner)}"
            text = shlex.quote(kept)
            return (
                f"{word}: ${{...}} stands for another key, and there is none such; as text, {text}"
            )
    return text.splitlines()[0]


def _keys(error: BaseException) -> Mapping[str, None]:
    """Full names of the keys of the configuration that an error speaks of."""
    cause = error.__cause__
    node = getattr(cause, "parent_node", None)
    if node is None:
        return {}
    prefix = node._get_full_key("")
    return dict.fromkeys(f"{prefix}.{key}" if prefix else str(key) for key in node)


def _say(text: str, status: int = 2) -> int:
    print(text, file=sys.stderr)
    return status
