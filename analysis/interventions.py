"""Causal studies of a run, with what their samples need of the run that they continue."""

from pathlib import Path

import xarray as xr

from stepscope.hooks.errors import RunError
from stepscope.probes.interventions.names import GROUP

INTERVENTION = "intervention"
"""The attribute of a run of edited samples that says what was done to them."""
PICTURE = "image_prompt"
"""The variable of a run with the pictures that its adapter was given; 0 where an embedding was given."""
JOINED = (
    "face_crop", "face_embedding", "donor_face_crop", "donor_face_embedding", "base_image",
    "reference_image",
)  # fmt: skip
"""Variables that such a run shows, and that the run holds which it continues."""


def base_of(path: Path) -> Path:
    """The run that the interventions in a folder continue."""
    return path.resolve().parents[1]


def studies(path: Path) -> list[str]:
    """Names of the causal studies that were made on a run."""
    return sorted(folder.parent.name for folder in (path / GROUP).glob("*/zarr.json"))


def join_base(path: Path, run: xr.Dataset) -> xr.Dataset:
    """The interventions with the faces and the images of the samples that they continue.

    Values stay on disk. A run that holds no interventions is given back as it is. Raises RunError where
    the folder was moved out of its run.
    """
    if INTERVENTION not in run.attrs:
        return run
    base = base_of(path)
    if not (base / "zarr.json").is_file() or path.resolve().parent.name != GROUP:
        raise RunError(
            f"{path} continues a run, and does not lie in it: move it back to RUN.zarr/{GROUP}/"
        )
    recorded = xr.open_zarr(base, chunks=None, consolidated=True)
    own = xr.DataArray(run["base"].values, dims="sample")
    first = {face: i for i, face in reversed([*enumerate(recorded["face"].values.tolist())])}
    faces = zip(run["donor_face"].values.tolist(), run["face"].values.tolist(), strict=True)
    donor = xr.DataArray([first[other or same] for other, same in faces], dims="sample")
    found = {
        "face_crop": ("face_crop", own),
        "face_embedding": ("face_embedding", own),
        "donor_face_crop": ("face_crop", donor),
        "donor_face_embedding": ("face_embedding", donor),
        "base_image": ("image", own),
    }
    if PICTURE in recorded and any(one.values.any() for one in recorded[PICTURE]):
        found["reference_image"] = (PICTURE, own)
    return run.assign(
        {
            name: recorded[source].variable.isel(sample=rows.variable)
            for name, (source, rows) in found.items()
            if source in recorded
        }
    )
