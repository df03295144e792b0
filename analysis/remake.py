"""The shortest command that makes a run anew, from the run's own attributes."""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stepscope.probes.usage import says


def again(about: Mapping[str, Any], path: Path) -> str:
    """The sentence for a run that is lost."""
    return f"Remove it and record it again: {recording(about, path)}"


def recording(about: Mapping[str, Any], out: str | Path) -> str:
    """The shortest `stepscope probe` that makes the run of these attributes."""
    made = about.get("configuration")
    if not isinstance(made, Mapping):
        return "the pipeline's call under `hooks.record`"
    from stepscope.probes.composing import composed  # Hydra: a run that is whole is read without it

    values = {"record" if key == "capture" else key: value for key, value in made.items()}
    adapter = (
        (values.pop("adapter") or {"name": "none"}) if "adapter" in values else {"name": "none"}
    )
    backbone = values.pop("backbone", {})
    words = [f"backbone={backbone.get('name')}", f"adapter={adapter.get('name')}"]
    try:
        default = composed(words)
    except Exception:  # Hydra's and OmegaConf's: a configuration that is not in conf/
        return f"its configuration is in {out}/zarr.json"
    words += changes(default, values | {"backbone": backbone, "adapter": adapter})
    return " ".join([says("probe"), *map(shlex.quote, words), f"out={out}"])


def changes(default: Mapping[str, Any], made: Mapping[str, Any], under: str = "") -> list[str]:
    """The overrides that turn one configuration into the other."""
    words = []
    for key, value in made.items():
        if isinstance(value, Mapping):
            words += changes(default.get(key) or {}, value, f"{under}{key}.")
        elif value != default.get(key):
            words.append(f"{under}{key}={_hydra(value)}")
    return words


def _hydra(value: Any) -> str:
    """A value in the grammar of Hydra's overrides."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{','.join(map(_hydra, value))}]"
    plain = isinstance(value, str) and value.replace("/", "").replace(".", "").isalnum()
    return value if plain else json.dumps(value, ensure_ascii=False)
