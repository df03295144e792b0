"""Files that appear whole or not at all, whenever a writer is killed and whoever else writes.

What is not finished yet has a name of its own: `.NAME.HOST.PID.RANDOM.partial`. So two processes never
write one file, and what a killed one left is known to be nobody's: by host and process.
"""

import os
import secrets
import shutil
import socket
from contextlib import suppress
from functools import cache
from pathlib import Path

_END = ".partial"


@cache
def machine() -> str:
    """This host, and within it the containers' own numbering of processes where there is one."""
    try:
        numbering = f"-{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        numbering = ""
    return socket.gethostname() + numbering


def partial(folder: Path, name: str) -> Path:
    """A new name in the folder for something that is not finished yet, which says whose it is."""
    return folder / f".{name}.{machine()}.{os.getpid()}.{secrets.token_hex(4)}{_END}"


def put(path: Path, data: bytes, scratch: Path) -> None:
    """Write a file in the folder `scratch` and rename it to `path`, whose folders are made.

    scratch: of the same filesystem. Raises OSError, and then leaves nothing behind.
    """
    beside = partial(scratch, path.name)
    try:
        with beside.open("wb") as file:
            file.write(data)
        if not path.parent.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
        os.replace(beside, path)
    except BaseException:
        with suppress(OSError):
            beside.unlink()
        raise


def sweep(folder: Path, name: str = "") -> None:
    """Remove what dead processes of this machine left unfinished in the folder, of one name or all.

    What a live process writes stays, and so does another machine's: nobody here can tell.
    """
    with os.scandir(folder) as entries:
        left = [e for e in entries if e.name.startswith(f".{name}") and e.name.endswith(_END)]
    for entry in left:
        if _nobodys(entry.name):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                with suppress(OSError):
                    os.unlink(entry.path)


def _nobodys(name: str) -> bool:
    """Whether the process that a name speaks of is of this machine, and dead."""
    words = name.removesuffix(_END).rsplit(".", 2)
    owner, pid = words[0], words[1] if len(words) == 3 else ""
    return owner.endswith(f".{machine()}") and pid.isdecimal() and not alive(int(pid))


def alive(pid: int) -> bool:
    """Whether a process of that number runs on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True
