"""Which files a run's models were made of, and whether those that are here now are the same.

A model is known by what is in its files, not by where they lie: a moved folder is no other model.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepscope.probes.adapters import ADAPTERS
from stepscope.probes.file_digest import digest, stamp
from stepscope.probes.places import located
from stepscope.probes.study import Study
from stepscope.probes.weights import (
    SETTING_FILES,
    WEIGHT_FILES,
    WeightsError,
    is_file,
    weight_files,
)


def role_of(key: str) -> str | None:
    """The role of the model whose place a setting such as `adapter.path` says; None for any other."""
    under, _, word = key.rpartition(".")
    if under == "backbone":
        return "backbone" if word in ("path", "base", "weights") else None
    if under != "adapter" and not under.startswith("beside."):
        return None
    role = next((kind.PLACES[word] for kind in ADAPTERS if word in kind.PLACES), None)
    return role if under == "adapter" or role is None else f"{under}.{role}"


def places_of(configuration: Mapping[str, Any], under: str = "") -> list[str]:
    """The settings of a configuration that say where a model lies, by their full keys."""
    found = []
    for name, value in configuration.items():
        key = f"{under}{name}"
        if isinstance(value, Mapping):
            found += places_of(value, f"{key}.")
        elif role_of(key) is not None:
            found.append(key)
    return found


@dataclass(frozen=True)
class Comparison:
    """A run's models with those that are here.

    other: `role/path: old -> new`, the SHA-256 of each file that is not the run's. What was laid
        beside them since changes nothing, and a model that is not here is not compared: a finished
        run needs none. same: roles of which every file that the run was made with is here. stamps:
        of those files.
    """

    other: list[str]
    same: frozenset[str]
    stamps: dict[str, str]


def file_hashes(study: Study, found: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """A run's attributes: the SHA-256 of its models' weights and settings, and the files' stamps.

    found: where faces were found, see `Finder.find`. Of the detector's pack, only the file that did.
    """
    used = {f"detector/{one['detector']}" for one in found if "detector" in one}
    here = {n: f for n, f in model_files(study).items() if _role(n) != "detector" or n in used}
    hashes = {name: digest(file) for name, file in here.items()}
    return {
        "weights": {n: h for n, h in hashes.items() if here[n].suffix in WEIGHT_FILES},
        "model_settings": {n: h for n, h in hashes.items() if here[n].suffix in SETTING_FILES},
        "weight_stamps": {name: stamp(file) for name, file in here.items()},
    }


def compare(about: Mapping[str, Any], study: Study) -> Comparison:
    """The models of a run with these attributes, and the study's. A file with its stamp is not read."""
    then = about["weights"] | about.get("model_settings", {})
    stamps = about.get("weight_stamps", {})
    files = model_files(study)
    here = {name: stamp(file) for name, file in files.items() if name in then}
    now = {n: then[n] if stamps.get(n) == seen else digest(files[n]) for n, seen in here.items()}
    differ = [name for name in then if now.get(name) != then[name]]
    found = {_role(name) for name in files}
    # What an older version did not write down may be other in another place.
    roles = {_role(name) for name in then} | found
    known = roles if "model_settings" in about else set()
    return Comparison(
        [
            f"{name}: {then[name][:12]} -> {now[name][:12] if name in now else 'not there'}"
            for name in differ
            if _role(name) in found
        ],
        frozenset(known - {_role(name) for name in differ}),
        {name: seen for name, seen in here.items() if name not in differ},
    )


def model_files(study: Study) -> dict[str, Path]:
    """Every file of weights or settings of the study's models on this machine, by role and path within."""
    kinds = (*WEIGHT_FILES, *SETTING_FILES)
    return {
        f"{role}/{name}": file
        for role, root in _roots(study).items()
        for name, file in weight_files(root, kinds).items()
    }


def _roots(study: Study) -> dict[str, Path]:
    """The folder or file of each model; those that this machine does not have are left out."""
    found = {}
    with suppress(WeightsError):
        found["backbone"] = study.family.folder(study.backbone, download=False)
    for setting in ("path", "weights"):
        place = getattr(study.backbone, setting)
        if place is not None and is_file(place) and located(place).is_file():
            found[f"backbone.{setting}"] = located(place)
    for key, adapter in study.adapters.items():
        for model in adapter.models():
            role = model.role if key == "adapter" else f"{key}.{model.role}"
            with suppress(WeightsError):
                found[role] = model.find()
    return found


def _role(name: str) -> str:
    return name.partition("/")[0]
