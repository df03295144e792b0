"""A file that appears whole or not at all, whenever its writer is killed."""

import os
from pathlib import Path


def put(path: Path, data: bytes) -> None:
    """Write beside `path` and rename; folders that are missing are made."""
    beside = path.with_name(f".{path.name}.partial")
    try:
        file = beside.open("wb")
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = beside.open("wb")
    with file:
        file.write(data)
    os.replace(beside, path)
