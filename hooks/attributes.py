"""A run's attributes on disk: numbers and text, so that xarray writes them to netCDF as they are.

Nested values are JSON text. `json_attributes` names them, separated by spaces; the hashes of models and
their files are one of them. Runs before schema version 3 hold the nested values themselves.
"""

import json
from collections.abc import Mapping
from typing import Any

NESTED = "json_attributes"
HASHES = "weight_hashes"
HASHED = ("models", "weights", "model_settings", "weight_stamps")
"""Attributes that are stored together in `weight_hashes`."""


def packed(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes as they are stored, from JSON values."""
    stored = {name: value for name, value in attributes.items() if name not in HASHED}
    hashes = {name: attributes[name] for name in HASHED if name in attributes}
    stored |= {HASHES: hashes} if hashes else {}
    nested = [name for name, value in stored.items() if not _is_plain(value)]
    return stored | {name: json.dumps(stored[name]) for name in nested} | {NESTED: " ".join(nested)}


def unpacked(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes as they were given, from those on disk, of any schema version."""
    nested = stored.get(NESTED, "").split()
    found = {n: json.loads(v) if n in nested else v for n, v in stored.items() if n != NESTED}
    return found | found.pop(HASHES, {}) if HASHES in nested else found


def annotated(stored: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Stored attributes with others in place of those of the same names, in the form that they have."""
    return packed({**unpacked(stored), **new}) if NESTED in stored else {**stored, **new}


def _is_plain(value: Any) -> bool:
    """Whether netCDF has such an attribute; it has no truth values."""
    return isinstance(value, str | int | float) and not isinstance(value, bool)
