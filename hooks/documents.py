"""The metadata documents of a run, as the Zarr 3 specification has them: read once, grown by renames."""

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from stepscope.hooks import atomic
from stepscope.hooks.attributes import annotated, unpacked
from stepscope.hooks.errors import RunError

FILE = "zarr.json"
SCRATCH = "done"
"""The array in whose folder lie locks and what is not finished yet.

Zarr and xarray look at all that lies in a group, and warn of what they do not know; in an array's folder
they look at its chunks alone.
"""

MEASURED = "analysis"
"""The group of what was measured of the run: it grows with it, and marks what is not measured yet."""

Document = dict[str, Any]


class Documents:
    """The group's document, in which those of all that is in it are consolidated, and the arrays' own.

    Zarr-Python's own resize and consolidation take some hundred round trips to its event loop for a
    run: longer than a step of a small model.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, ...] = ()
        self.refresh()

    def refresh(self) -> bool:
        """Read the group's document again if another process has replaced it; whether it has."""
        try:
            seen = _version(self._path / FILE)
            if seen == self._seen:
                return False
            self._group: Document = json.loads((self._path / FILE).read_bytes())
        except FileNotFoundError as error:
            raise RunError(f"{self._path} is gone: it was moved or removed") from error
        except ValueError as error:
            raise RunError(
                f"{self._path} is damaged, its {FILE} cannot be read: {error}"
            ) from error
        self._seen = seen
        self._all: dict[str, Document] = self._group.get("consolidated_metadata", {}).get(
            "metadata", {}
        )
        return True

    @property
    def arrays(self) -> dict[str, Document]:
        """Those of this group, not of one within."""
        return {
            name: document
            for name, document in self._all.items()
            if document["node_type"] == "array" and "/" not in name
        }

    @property
    def attributes(self) -> dict[str, Any]:
        """The group's attributes as JSON values, whichever form they have on disk."""
        return unpacked(self._stored)

    @property
    def _stored(self) -> dict[str, Any]:
        return dict(self._group.get("attributes", {}))

    def annotate(self, **attributes: Any) -> None:
        """Replace attributes of the group, visible at once to readers."""
        self._group["attributes"] = annotated(self._stored, attributes)
        self._publish()

    def array(self, name: str) -> Document:
        """The document of an array, also of a group within: `group/name`."""
        return self._all[name]

    def along_sample(self) -> list[str]:
        """The arrays that grow with the run: this group's, and those of what was measured of it."""
        found = {n: d for n, d in self._all.items() if d["node_type"] == "array"}
        return [
            name
            for name, document in found.items()
            if document["dimension_names"][:1] == ["sample"]
            and ("/" not in name or name.startswith(f"{MEASURED}/"))
            and document["shape"][0] == self._all["done"]["shape"][0]
        ]

    def grow(
        self, size: int, others: Mapping[str, Document], more: Mapping[str, Any] | None = None
    ) -> None:
        """Give the samples' axis another size, and put further arrays beside the others.

        others: documents of arrays that are new, or take another's place; their chunks are written.
        more: attributes of the group that change with it.
        Readers see all of it at once, when the group's document is replaced, or nothing.
        """
        names = [name for name in self.along_sample() if name not in others]
        grown = [self._all[name] for name in names]
        sizes = [document["shape"][0] for document in grown]
        attributes = self._stored
        before = {name: self._all.get(name) for name in (*names, *others)}
        for document in grown:
            document["shape"][0] = size
        self._all |= others
        known = attributes | _coordinates(attributes, others)
        self._group["attributes"] = annotated(known, more or {})
        try:
            for name in before:
                self._put(self._path / name, self._all[name])
            self._publish()
        except BaseException:
            for document, old in zip(grown, sizes, strict=True):
                document["shape"][0] = old
            self._group["attributes"] = attributes
            self._restore(before)
            raise

    def _restore(self, before: Mapping[str, Document | None]) -> None:
        """Arrays as they were: in memory, and on disk as far as that can be written."""
        for name, document in before.items():
            if document is None:
                del self._all[name]
                shutil.rmtree(self._path / name, ignore_errors=True)
                continue
            self._all[name] = document
            with suppress(OSError):
                self._put(self._path / name, document)

    def sweep(self) -> None:
        """Remove arrays that a killed process had put beside the others and not yet made known."""
        with os.scandir(self._path) as entries:
            folders = {e.name for e in entries if e.is_dir()} - self._all.keys()
        for name in folders:
            with suppress(OSError, ValueError, KeyError, TypeError):
                document = json.loads((self._path / name / FILE).read_bytes())
                if document["node_type"] == "array" and "label" in document["attributes"]:
                    shutil.rmtree(self._path / name)

    def knows(self, group: str) -> bool:
        """Whether readers of this group know all that lies in a group within."""
        return _nodes(self._path, group) == self._within(group)

    def adopt(self, group: str) -> None:
        """Make what lies in a group within known to readers of this one, or forget it if it is gone."""
        for name in self._within(group):
            del self._all[name]
        self._all |= _nodes(self._path, group)
        self._publish()

    def _within(self, group: str) -> dict[str, Document]:
        return {n: d for n, d in self._all.items() if n == group or n.startswith(f"{group}/")}

    def _publish(self) -> None:
        """Replace the group's document, which readers go by, in one rename."""
        self._put(self._path, self._group)
        self._seen = _version(self._path / FILE)

    def _put(self, node: Path, document: Document) -> None:
        atomic.put(node / FILE, json.dumps(document).encode(), self._path / SCRATCH)


def _coordinates(attributes: Document, names: Iterable[str]) -> Document:
    """The attribute by which xarray knows coordinates, with further names."""
    if "coordinates" not in attributes:
        return {}
    return {"coordinates": " ".join(dict.fromkeys([*attributes["coordinates"].split(), *names]))}


def _version(file: Path) -> tuple[int, ...]:
    """What changes when a file is replaced."""
    status = file.stat()
    return status.st_ino, status.st_mtime_ns, status.st_size


def _nodes(path: Path, group: str) -> dict[str, Document]:
    """The documents of a group and of its arrays, by their names, as Zarr-Python consolidates them."""
    if not (path / group / FILE).is_file():
        return {}
    own = json.loads((path / group / FILE).read_bytes())
    empty = {"kind": "inline", "must_understand": False, "metadata": {}}
    arrays = {
        f"{group}/{file.parent.name}": json.loads(file.read_bytes())
        for file in sorted((path / group).glob(f"*/{FILE}"))
    }
    return {group: own | {"consolidated_metadata": empty}, **arrays}
