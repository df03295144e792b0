"""Photos that the user names for the samples of a run, each by the value of the coordinate `face`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from stepscope.hooks.errors import StepscopeError, nearest
from stepscope.probes.faces import face_files


@dataclass(frozen=True)
class Photos:
    """Which photo is of which sample.

    references: photos by the value of the samples' coordinate `face`; or photos named by their files. Where
    none is given, those that were named when the run was recorded. A single photo is of every sample where
    no sample has a `face`.
    """

    references: Mapping[str, str] | Sequence[str] = ()

    def files(self, about: Mapping[str, Any]) -> dict[str, Path]:
        """The photos by name, those that the run names where none is given.

        Raises FaceError for one that does not exist.
        """
        given = self.references or about.get("references", {})
        if not isinstance(given, Mapping):
            return face_files(given, "references") if given else {}
        return {
            name: next(iter(face_files([photo], "references").values()))
            for name, photo in given.items()
        }

    def shown(self, run: xr.Dataset) -> dict[str, Path]:
        """The photos, without those that were named for another run."""
        files, people = self.files(run.attrs), {*self.people(run)}
        return {n: p for n, p in files.items() if n in people} if self.references else files

    def people(self, run: xr.Dataset) -> list[str | None]:
        """The name of each sample's reference, None where it has none."""
        files, named = self.files(run.attrs), [str(face) for face in run["face"].values]
        if not files:
            return [None] * len(named)
        if not any(named) and len(files) == 1:
            return [next(iter(files))] * len(named)
        known = dict.fromkeys(filter(None, named))
        if self.references and not files.keys() & known.keys():
            name, photo = next(iter(files.items()))
            raise StepscopeError(
                nobody(name, photo, known)
                if known
                else f"references: {len(files)} people, and no sample says whose face it shows: "
                "label each call, recording.label([{'face': NAME}]), or name one photo"
            )
        return [face if face in files else None for face in named]


def check_people(references: Mapping[str, str] | Sequence[str], runs: Sequence[xr.Dataset]) -> None:
    """Raise StepscopeError for a photo that does not exist, and for one of nobody in any of the runs."""
    files = Photos(references).files({})
    known = [dict.fromkeys(str(face) for face in run["face"].values if face) for run in runs]
    if len(files) == 1 and not all(known):  # it is of all in a run that names nobody
        return
    everybody = {name: None for names in known for name in names}
    for name, photo in files.items():
        if everybody and name not in everybody:
            raise StepscopeError(nobody(name, photo, everybody))


def nobody(name: str, photo: Path, known: Iterable[str]) -> str:
    """That a photo is of nobody in a run, and who is there."""
    return (
        f"references: no sample has face={name!r}; {nearest(name, known)}; to say whose photo it is, "
        f"--reference NAME={photo}"
    )
