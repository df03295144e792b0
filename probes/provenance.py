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
from probes.weights import digest, folder, weight_files

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
    return {
        **provenance(pipe, study.capture),
        "configuration": configuration(study),
        "backbone": study.backbone.name,
        "adapter": study.adapter.name if study.adapter is not None else "none",
        "weights": weights(study),
        "faces": {
            face.name: {"file_sha256": digest(files[face.name]), **face.found} for face in faces
        },
        "conditioning_encoder": study.adapter.encoder if study.adapter is not None else "",
    }


def weights(study: Study) -> dict[str, str]:
    """SHA-256 of every weight file that the study reads, by role and path."""
    roots = {"backbone": folder(study.backbone.path, "backbone")}
    if study.adapter is not None:
        roots["adapter"] = adapter_folder(study.adapter)
        encoder = Path(study.adapter.encoder).expanduser()
        if encoder.is_file():
            roots["encoder"] = encoder
    return {
        f"{role}/{name}": digest(file)
        for role, root in roots.items()
        for name, file in weight_files(root).items()
    }
