"""The paths in a configuration: `~` is the home folder, and an address of another store is refused."""

import os
from collections.abc import Collection, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from stepscope.hooks.paths import local_path

FILES = ("out", "control_image", "initial_latents")
"""Keys of files and folders. Those of models and faces are expanded where they are looked up, so that
the configuration of a run says `~/.insightface` and not whose home it was."""
SHIPPED = Path(str(files("stepscope.pocket")))
"""The pocket models and portraits that come with stepscope."""


def placed(values: Mapping[str, Any], models: Mapping[str, Collection[str]]) -> dict[str, Any]:
    """The configuration with its paths as they are on this machine.

    models: by group the keys that say where a model lies, which are looked at and left as they are. Raises
    UnsupportedPathError, with the key, for `s3://…` and the like.
    """
    found = {k: _local(k, value) if k in FILES else value for k, value in values.items()}
    prompts = found.get("prompts")
    if isinstance(prompts, list) and len(prompts) == 1 and str(prompts[0]).endswith(".txt"):
        found["prompts"] = [_local("prompts", prompts[0])]
    faces = found.get("faces")
    for face in faces if isinstance(faces, list) else ():
        _local("faces", face)
    for group, keys in models.items():
        named = found.get(group)
        if isinstance(named, Mapping):
            for key in keys:
                _local(f"{group}.{key}", named.get(key))
    return found


def _local(key: str, value: Any) -> Any:
    """What is no text is left for the schema to refuse."""
    if not isinstance(value, str):
        return value
    path = local_path(value, key)
    return str(path) if value.startswith("~") else value


def located(path: str | os.PathLike[str]) -> Path:
    """The path with `~` expanded. `pocket/…` is what ships, where the working folder has no such path."""
    local = Path(path).expanduser()
    shipped = SHIPPED.joinpath(*local.parts[1:])
    return shipped if local.parts[:1] == ("pocket",) and not local.exists() else local
