"""Run an entry point so that a user's mistake is one line on standard error, not a traceback."""

import errno
import os
import re
import sys
from collections.abc import Callable

import torch
from hydra.errors import HydraException, MissingConfigException
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from hooks.errors import StepscopeError, nearest

INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def guarded(main: Callable[[], None]) -> int:
    """Call `main` and return a process's exit status: 0, 2 for what the user can mend, 130 after Ctrl-C."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # let Hydra's errors reach the lines below
    try:
        main()
    except KeyboardInterrupt:
        return _say(
            "stopped; the samples finished so far are kept: the same command continues", INTERRUPTED
        )
    except StepscopeError as error:
        return _say(str(error))
    except torch.OutOfMemoryError:
        return _say("out of GPU memory: lower batch_size, height and width, or use record=norms")
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return _say(f"the disk is full ({error.filename}): make room, the same command continues")
    except (HydraException, OmegaConfBaseException) as error:
        return _say(composition(error))
    return 0


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
