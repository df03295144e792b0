"""The metadata documents of a run, as the Zarr 3 specification has them: read once, grown by renames."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hooks import atomic
from hooks.errors import RunError

FILE = "zarr.json"


class Documents:
    """The group's document, in which those of its arrays are consolidated, and the arrays' own.

    Zarr-Python's own resize and consolidation take some hundred round trips to its event loop for a
    run: longer than a step of a small model.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._group: dict[str, Any] = json.loads((path / FILE).read_bytes())
        except ValueError as error:
            raise RunError(f"{path} is damaged, its {FILE} cannot be read: {error}") from error
        metadata = (self._group.get("consolidated_metadata") or {}).get("metadata", {})
        self.arrays: dict[str, dict[str, Any]] = {
            name: document
            for name, document in metadata.items()
            if document["node_type"] == "array"
            and "/" not in name  # of this group, not of one within
        }

    @property
    def attributes(self) -> dict[str, Any]:
        return dict(self._group.get("attributes", {}))

    def annotate(self, **attributes: Any) -> None:
        """Replace attributes of the group, visible at once to readers."""
        self._group["attributes"] = self.attributes | attributes
        self.publish()

    def grow(self, names: Sequence[str], size: int) -> None:
        """Give arrays another first axis. Readers see all of it at once, in `publish`, or nothing."""
        grown = [self.arrays[name] for name in names]
        before = [document["shape"][0] for document in grown]
        for document in grown:
            document["shape"][0] = size
        try:
            for name in names:
                self._put(self._path / name, self.arrays[name])
            self.publish()
        except BaseException:
            for document, old in zip(grown, before, strict=True):
                document["shape"][0] = old
            raise

    def publish(self) -> None:
        """Replace the group's document, which readers go by, in one rename."""
        self._put(self._path, self._group)

    def _put(self, node: Path, document: dict[str, Any]) -> None:
        atomic.put(node / FILE, json.dumps(document).encode())
