"""Entry points in which a user's mistake is one line on standard error, not a traceback."""

import errno
import os
import re
import sys
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import hydra
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from stepscope.hooks.errors import StepscopeError, nearest
from stepscope.probes.shortage import memory

INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def command(main: Callable[[], None]) -> int:
    """Run a Hydra entry point; returns the process's exit status: 0, or 2 for a mistaken override."""
    # Hydra raises its errors instead of printing them
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    if {"-h", "--help"} & set(sys.argv[1:]):  # Hydra's own needs a configuration that composes
        print(main.__doc__)
        return 0
    words = ["dry=true" if word == "--dry" else at_home(word) for word in sys.argv[1:]]
    # argparse takes no overrides after an option that stands among them
    sys.argv[1:] = sorted(words, key=lambda word: word not in ("-m", "--multirun"))
    try:
        main()
    except (HydraException, OmegaConfBaseException, MissingConfigException) as error:
        return _say(composition(error))
    return 0


def at_home(word: str) -> str:
    """A word in which `~/runs/a.zarr` is quoted: shells leave it after `=`, and Hydra reads no `~`.

    A word with quotes of its own is left as it is, and so is one that begins with `~`, Hydra's sign to
    delete a key.
    """
    if any(sign in word for sign in "'\"\\"):
        return word
    return re.sub(r"(?<=[=\[,])(~[^,\[\]]*)", r"'\1'", word)


def entry(config_name: str, work: Callable[[dict[str, Any]], object]) -> Callable[[], None]:
    """Hydra's main function for a configuration of `conf`: does `work` with its values, as `job`."""

    @hydra.main(version_base="1.3", config_path="pkg://stepscope.conf", config_name=config_name)
    def main(config: DictConfig) -> None:
        def composed() -> None:
            values: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
            work(values)

        job(composed)

    main.__doc__ = usage(config_name)
    return main


def usage(config_name: str) -> str:
    """What may be named after a command: groups with their options, keys with their defaults."""
    folder = files("stepscope.conf")
    text = (folder / f"{config_name}.yaml").read_text(encoding="utf-8")
    groups = re.findall(r"^  - (\w+): ", text, re.MULTILINE)
    options = {
        group: sorted(f.name.removesuffix(".yaml") for f in (folder / group).iterdir())
        for group in groups
    }
    lines = [
        "Words are KEY=VALUE or GROUP=OPTION. -m sweeps over a=1,2; --cfg job shows what they make.",
        "",
        *(f"{group}={'|'.join(names)}" for group, names in options.items()),
        "",
        re.sub(r"^(defaults|hydra):\n(( .*)?\n)*", "", text, flags=re.MULTILINE).strip(),
    ]
    return "\n".join(lines)


def job(work: Callable[[], object]) -> None:
    """Do an entry point's work; what the user can mend ends the process with one line and status 2.

    Ctrl-C ends it with 130. Called inside Hydra's main function, which would add lines of its own
    to an exception that passes through it.
    """
    try:
        work()
    except KeyboardInterrupt:
        line = "stopped; the samples finished so far are kept: the same command continues"
        raise SystemExit(_say(line, INTERRUPTED)) from None
    except StepscopeError as error:
        raise SystemExit(_say(str(error))) from None
    except OmegaConfBaseException as error:  # a value that only a resolved configuration misses
        raise SystemExit(_say(composition(error))) from None
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
        where = memory(error)
        if where is None:
            raise
        line = f"out of {where}: lower batch_size, height and width, or use record=norms"
        raise SystemExit(_say(line)) from None
    except OSError as error:
        line = f"{error.strerror or error}: {error.filename}"
        if error.errno == errno.ENOSPC:
            line = "the disk is full: make room, the same command continues"
        elif error.filename is None:
            raise
        raise SystemExit(_say(line)) from None


def composition(error: Exception) -> str:
    """Hydra's and OmegaConf's errors in one line, with the nearest key or option."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        return f"no {group}={name!r}; {nearest(name, error.options)}"
    if isinstance(error, MissingMandatoryValue):
        key = getattr(error, "full_key", None) or str(error).rsplit(" ", 1)[-1]
        return f"{key} is not set: name {key}=..."
    text = str(error).strip()
    if match := re.search(r"You must specify '(\w+)'", text):
        options = re.findall(r"^\t(\S+)$", text, re.MULTILINE)
        return f"{match[1]} is not set; known: {', '.join(options)}"
    if match := re.search(r"Could not override '([^']+)'", text):
        return f"no configuration key {match[1]!r}; {nearest(match[1], _keys(error))}"
    return text.splitlines()[0]


def _keys(error: BaseException) -> list[str]:
    """Full names of the keys of the configuration that an error speaks of."""
    cause = error.__cause__
    node = getattr(cause, "parent_node", None)
    if node is None:
        return []
    prefix = node._get_full_key("")
    return [f"{prefix}.{key}" if prefix else str(key) for key in node]


def _say(text: str, status: int = 2) -> int:
    print(text, file=sys.stderr)
    return status
