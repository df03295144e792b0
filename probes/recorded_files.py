"""The files of faces and pictures that a run was made of, where they still are."""

from pathlib import Path

from stepscope.hooks.errors import RunError
from stepscope.probes.existing import other_files
from stepscope.probes.faces import FaceError, face_files
from stepscope.probes.rereading import Rereading
from stepscope.probes.study import Study


def same_files(run: Rereading, study: Study) -> dict[str, Path]:
    """The run's files of faces and pictures. Raises RunError for one that is gone or changed."""
    try:
        files = face_files(study.faces)
    except FaceError as error:
        raise RunError(
            f"{run.path} was made of files of faces or pictures which it does not hold: {error}"
        ) from error
    changed = other_files(run.store, study, files)
    gone = [name for name in run.store.attributes["faces"] if name not in files]
    if changed or gone:
        told = [*changed, *(f"the file of face {name} is gone" for name in gone)]
        raise RunError(f"{run.path} was made of other files: {'; '.join(told)}")
    return files
