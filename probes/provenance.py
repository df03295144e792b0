"""What identifies a probe run: its configuration, faces, and the hash of every weight file."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hooks.provenance import provenance
from probes.faces import Face
from probes.infusenet import adapter_folder
from probes.study import Study
from probes.weights import WeightsError, digest, folder, stamp, weight_files

# Settings that do not decide what is recorded.
_ELSEWHERE = ("out", "dry")


def configuration(study: Study) -> dict[str, Any]:
    """The resolved configuration as JSON values: everything that decides what is recorded."""
    values = asdict(study)
    for name in _ELSEWHERE:
        values.pop(name)
    return json.loads(json.dumps(values))


def default_out(study: Study) -> Path:
    """`runs/<backbone>-<adapter>-<steps>-<hash of the configuration>.zarr`."""
    text = json.dumps(configuration(study), sort_keys=True)
    adapter = study.adapter.name if study.adapter is not None else "none"
    tail = hashlib.sha256(text.encode()).hexdigest()[:8]
    return Path("runs") / f"{study.backbone.name}-{adapter}-{study.steps}-{tail}.zarr"


def differences(old: Mapping[str, Any], new: Mapping[str, Any], under: str = "") -> list[str]:
    """Each setting that differs, as `key: old -> new`."""
    found = []
    for key in sorted({*old, *new}):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{under}{key}.")
        elif a != b:
            found.append(f"{under}{key}: {json.dumps(a)} -> {json.dumps(b)}")
    return found


def attributes(
    study: Study, pipe: Any, faces: Iterable[Face], files: Mapping[str, Path]
) -> dict[str, Any]:
    """Attributes of a probe's run: `hooks.provenance`, and what probes know besides."""
    found = weights(study)
    return {
        **provenance(pipe, study.capture),
        "configuration": configuration(study),
        "backbone": study.backbone.name,
        "adapter": study.adapter.name if study.adapter is not None else "none",
        "weights": {name: digest(file) for name, file in found.items()},
        "weight_stamps": {name: stamp(file) for name, file in found.items()},
        "faces": {
            face.name: {"file_sha256": digest(files[face.name]), **face.found} for face in faces
        },
        "conditioning_encoder": study.adapter.encoder if study.adapter is not None else "",
    }


def weights(study: Study) -> dict[str, Path]:
    """Every weight file of the study's models that this machine has, by role and path within.

    The detector's pack is not among them: what it found of each face is in the run's `faces`.
    """
    roots = {"backbone": folder(study.backbone.path, "backbone", download=False)}
    if study.adapter is not None:
        roots["adapter"] = adapter_folder(study.adapter, download=False)
        encoder = Path(study.adapter.encoder).expanduser()
        if encoder.is_file():
            roots["encoder"] = encoder
    return {
        f"{role}/{name}": file
        for role, root in roots.items()
        for name, file in weight_files(root).items()
    }


def other_weights(about: Mapping[str, Any], study: Study) -> list[str]:
    """Each weight file that is not the one a run was made with: `role/path: old -> new` SHA-256.

    A file as old and large as it was is not read again. Weights that this machine does not have (a
    finished run needs none) are not compared.
    """
    try:
        files = weights(study)
    except WeightsError:
        return []
    then, stamps = about["weights"], about.get("weight_stamps", {})
    now = {  # a file that was laid beside the others since changes nothing
        name: then[name] if stamps.get(name) == stamp(file) else digest(file)
        for name, file in files.items()
        if name in then
    }
    roles = {name.split("/")[0] for name in files}
    old, new = (
        {name: sha256[:12] for name, sha256 in known.items() if name.split("/")[0] in roles}
        for known in (then, now)
    )
    return differences(old, new)
