"""Reference faces for a run that does not hold them: an aligned photo of each person.

A run of `stepscope probe` with an adapter holds the face that conditions it. For a run of any other
pipeline the user names the photos.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from stepscope.analysis.metrics.arcface import Recognition
from stepscope.analysis.metrics.chance import load_finder
from stepscope.analysis.metrics.metric import Quantity
from stepscope.analysis.metrics.panel import pack
from stepscope.hooks.errors import StepscopeError, nearest
from stepscope.probes.backbones import pick_device
from stepscope.probes.face_variables import FACE_VARIABLES, SHAPES
from stepscope.probes.faces import face_files
from stepscope.probes.pictures import read_picture
from stepscope.probes.recognisers import aligned
from stepscope.probes.weights import digest


@dataclass(frozen=True)
class Reference(Recognition):
    """The reference face of each sample, found by the first recogniser's pack.

    references: photos by the value of the samples' coordinate `face`; or photos named by their files. Where
    none is given, those that were named when the run was recorded. A single photo is the reference of every
    sample where no sample has a `face`. Without photos no sample has a reference, and similarities are NaN.
    """

    references: Mapping[str, str] | Sequence[str] = ()
    name: ClassVar[str] = "reference"
    reads: ClassVar[tuple[str, ...]] = ("done",)
    whole: ClassVar[bool] = True

    def preflight(self) -> None:
        super().preflight()
        self.files({})

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

    def quantities(self, run: xr.Dataset) -> Mapping[str, Quantity]:
        """None where the run holds its faces."""
        if all(
            name in run and run[name].attrs.get("metric") != self.name for name in FACE_VARIABLES
        ):
            return {}
        long_names = {
            "face_embedding": "unknown: the run does not record a conditioning face",
            "face_crop": "the reference face, aligned to 112 x 112 by its five keypoints; 0 where a "
            "sample has none",
        }
        return {
            name: Quantity(declared.dims[1:], declared.dtype, declared.units, long_names[name])
            for name, declared in FACE_VARIABLES.items()
        }

    def coordinates(self, run: xr.Dataset) -> dict[str, tuple[str, Any]]:
        if not self.quantities(run):
            return {}
        rows, columns, _ = SHAPES["face_crop"]
        sizes = {
            "embedding": SHAPES["face_embedding"][0],
            "crop_row": rows,
            "crop_column": columns,
        }
        axes: dict[str, tuple[str, Any]] = {n: (n, np.arange(size)) for n, size in sizes.items()}
        axes["crop_row"] = ("crop_row", -np.arange(rows))
        return {**axes, "rgb": ("rgb", ["red", "green", "blue"])}

    def size(self, run: xr.Dataset) -> int:
        """Detection size of the photos, in pixels, 0 for each photo's own; no image of the run is read."""
        return self.det_size or 0

    def settings(self, run: xr.Dataset) -> dict[str, Any]:
        """The panel and the photos by hash. Raises StepscopeError where no sample says whom it shows."""
        photos = {name: digest(photo) for name, photo in self.shown(run).items()}
        return {**super().settings(run), "photos": photos}

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

    def load(self, run: xr.Dataset) -> None:
        self.crops(run)

    def crops(self, run: xr.Dataset) -> dict[str, np.ndarray]:
        """The aligned RGB face of each photo. Raises FaceError for one without a face."""
        detector = str(pack(self.panel(run)[0].detector, self.root))
        finder = load_finder(detector, self.root, pick_device(self.device))
        faces = {}
        for name, photo in self.shown(run).items():
            image = np.asarray(read_picture(photo, "references"))[:, :, ::-1].copy()
            keypoints, _ = finder.find(image, str(photo))
            faces[name] = aligned(image, keypoints)[:, :, ::-1].copy()
        return faces

    def __call__(self, samples: xr.Dataset) -> dict[str, np.ndarray]:
        people, crops = self.people(samples), self.crops(samples)
        found = {
            "face_embedding": np.full((len(people), *SHAPES["face_embedding"]), np.nan, np.float32),
            "face_crop": np.zeros((len(people), *SHAPES["face_crop"]), np.uint8),
        }
        for i, name in enumerate(people):
            if name is not None:
                found["face_crop"][i] = crops[name]
        return {name: found[name] for name in self.quantities(samples)}


def check_people(references: Mapping[str, str] | Sequence[str], runs: Sequence[xr.Dataset]) -> None:
    """Raise StepscopeError for a photo that does not exist, and for one of nobody in any of the runs."""
    files = Reference(references=references).files({})
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
