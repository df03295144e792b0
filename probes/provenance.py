"""What identifies a probe run: its configuration, faces, and the hash of every weight file."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

from stepscope.hooks.fingerprint import of_models
from stepscope.hooks.provenance import provenance
from stepscope.probes.backbones import Backbone
from stepscope.probes.faces import Face
from stepscope.probes.file_digest import digest
from stepscope.probes.model_files import file_hashes
from stepscope.probes.places import located
from stepscope.probes.study import Study

# Settings that do not decide what is recorded.
_ELSEWHERE = ("out", "dry")
# Settings of a backbone that runs of older versions do not name: left out where they say nothing.
_SINCE = {field.name for field in fields(Backbone) if field.default is not MISSING}


def configuration(study: Study) -> dict[str, Any]:
    """The resolved configuration as JSON values: everything that decides what is recorded.

    Which of several like devices does not: processes on cuda:0 and cuda:1 may share one run.
    """
    values = asdict(study)
    for name in _ELSEWHERE:
        values.pop(name)
    values["device"] = values["device"].partition(":")[0]
    for name in _SINCE & values["backbone"].keys():
        if values["backbone"][name] == getattr(Backbone, name):
            values["backbone"].pop(name)
    if study.adapter is not None and study.adapter.KIND == "infusenet":
        values["adapter"].pop("kind")
    if not study.beside:
        values.pop("beside")
    if not study.true_cfg_start:
        values.pop("true_cfg_start")
    edits = [wanted.told() for wanted in study.edits]
    values.pop("edits")
    if edits:  # a run without is the same run as before there were any
        values["edits"] = edits
    return json.loads(json.dumps(values))


def default_out(study: Study) -> Path:
    """`runs/<backbone>-<adapter>-<steps>-<hash of the configuration>.zarr`."""
    text = json.dumps(configuration(study), sort_keys=True)
    adapter = adapters_name(study)
    tail = hashlib.sha256(text.encode()).hexdigest()[:8]
    return Path("runs") / f"{study.backbone.name}-{adapter}-{study.steps}-{tail}.zarr"


def differences(old: Mapping[str, Any], new: Mapping[str, Any], under: str = "") -> dict[str, str]:
    """Each setting that differs, by its full key: `old -> new`."""
    found = {}
    for key in sorted({*old, *new}):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found |= differences(a, b, f"{under}{key}.")
        elif a != b:
            found[f"{under}{key}"] = f"{json.dumps(a)} -> {json.dumps(b)}"
    return found


def attributes(
    study: Study,
    pipe: Any,
    faces: Iterable[Face],
    files: Mapping[str, Path],
    control: Mapping[str, Any],
) -> dict[str, Any]:
    """Attributes of a probe's run: `hooks.provenance`, and what probes know besides.

    files: of the faces, by name; control: where the face of the control image's photo was found.
    """
    faces = list(faces)
    return {
        **provenance(pipe, study.capture, of_models(pipe)),
        "configuration": configuration(study),
        **({"edits": [wanted.edit().told() for wanted in study.edits]} if study.edits else {}),
        "backbone": study.backbone.name,
        "adapter": adapters_name(study),
        **file_hashes(study, [*(face.found for face in faces), control]),
        "faces": {
            face.name: {"file_sha256": digest(files[face.name]), **face.found} for face in faces
        },
        "control_image": dict(control),
        "inputs": inputs(study),
        "conditioning_encoder": next(
            (e for one in study.adapters.values() if (e := getattr(one, "encoder", ""))), ""
        ),
    }


def adapters_name(study: Study) -> str:
    """The adapters in one word: `infusenet`, `infusenet+lora`, `none`."""
    return "+".join(one.name for one in study.adapters.values()) or "none"


def inputs(study: Study) -> dict[str, str]:
    """SHA-256 of the files that the configuration names besides faces and models, where they are here."""
    named = {"control_image": study.control_image, "initial_latents": study.initial_latents}
    named |= {f"edits[{i}].direction": wanted.direction for i, wanted in enumerate(study.edits)}
    files = {key: located(path) for key, path in named.items() if path is not None}
    return {key: digest(file) for key, file in files.items() if file.is_file()}
