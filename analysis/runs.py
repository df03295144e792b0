"""Runs as analysis reads them: checked, with one line that names what is missing and how to fix it."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import xarray as xr

from stepscope.analysis.interventions import join_base
from stepscope.analysis.log_snr import with_log_snr
from stepscope.analysis.remake import again, recording
from stepscope.analysis.rereads import containing_group, join_readings
from stepscope.hooks.attributes import unpacked
from stepscope.hooks.chunks import Chunks
from stepscope.hooks.documents import MEASURED, Documents
from stepscope.hooks.errors import RunError, StepscopeError
from stepscope.hooks.labels import ABSENT, KNOWN
from stepscope.hooks.paths import beside, run_path
from stepscope.hooks.vocabulary import READABLE, SAMPLE_COORDINATES, described
from stepscope.probes.usage import says

GROUP = MEASURED
MARK = "measured_"
"""Prefix of the variables with each sample's fingerprint of a metric's inputs; 0 is not measured."""
SHOWN = 3  # runs that a message names
PICTURES = {"row", "y", "token_y", "crop_row", "image_row"}
"""Axes of the variables that are loaded only when they are used."""


def open_recorded(path: str | Path) -> xr.Dataset:
    """A finished run as it was recorded, nothing read yet.

    Its attributes are JSON values. A sample coordinate that an older schema does not have is there with
    what stands for not known. Raises RunError for what is not a run, is unfinished, damaged, or of a
    schema that is not read.
    """
    path = run_path(path)
    about = attributes(path)
    with reading(path, about):
        run = xr.open_zarr(path, chunks=None, consolidated=True)
        run.attrs = unpacked(run.attrs)
        done = run["done"].values
    if not done.all():
        raise RunError(
            f"{path} is unfinished, {int(done.sum())} of {len(done)} samples are done; "
            f"the command that made it continues: {recording(about, path)}"
        )
    for name, document in Documents(path).arrays.items():
        lost = Chunks(path / name, document).missing()
        if lost:
            labels = (*SAMPLE_COORDINATES, "sample", "done")
            recorded = run[name].dims[:1] == ("sample",) and name not in labels
            recorded = recorded and "label" not in run[name].attrs
            cure = f"The command that made it makes those samples again: {recording(about, path)}"
            raise RunError(
                f"{path} is damaged: {name} lacks {lost} of its files. "
                f"{cure if recorded and 'configuration' in about else again(about, path)}"
            )
    return join_base(path, join_readings(path, with_log_snr(run.assign_coords(unknown(run)))))


def open_run(path: str | Path) -> xr.Dataset:
    """Open a finished run, with its measured variables beside the recorded ones.

    Needs neither torch nor diffusers. Images, latents and maps stay on disk until they are used. A
    metric of which a sample is not measured yet is left out. Raises RunError for what is not a run, is
    unfinished, damaged, or of a schema that is not read.
    """
    path = run_path(path)
    attributes(path)
    found = measurements(path)
    marks = [values for name, values in found.variables.items() if str(name).startswith(MARK)]
    samples = xr.open_zarr(path, chunks=None, consolidated=True).sizes["sample"]
    complete = found.sizes.get("sample") == samples and any(mark.values.all() for mark in marks)
    return open_measured(path) if complete else open_recorded(path)


def unknown(run: xr.Dataset) -> dict[str, xr.Variable]:
    """The sample coordinates that a run of an older schema does not have, as not known."""
    return {
        name: xr.Variable(
            declared.dims,
            KNOWN[name].stored([ABSENT] * run.sizes["sample"]),
            declared.unit() | described(name, declared.long_name),
        )
        for name, declared in SAMPLE_COORDINATES.items()
        if name not in run.variables
    }


def open_measured(path: str | Path) -> xr.Dataset:
    """A finished run and what was measured of it, in one dataset with the run's attributes.

    Images, latents and maps stay on disk until they are asked for; all else is read, and so proved
    undamaged. A metric of which a sample is not measured is left out. Raises RunError as
    `open_recorded` does, and where nothing was measured.
    """
    path = run_path(path)
    run = open_recorded(path)
    found = measurements(path)
    names = [name for name in found.variables if str(name).startswith(MARK)]
    complete = [str(name).removeprefix(MARK) for name in names if found[name].values.all()]
    of = {name: found[name].attrs.get("metric") for name in found.data_vars}
    kept = [name for name, by in of.items() if by in complete and not str(name).startswith(MARK)]
    if not kept or found.sizes["sample"] != run.sizes["sample"]:
        raise RunError(f"{path} is not measured: {says('measure')} {path}")
    joined = run.assign(found[kept].drop_vars(list(run.coords), errors="ignore").variables)
    joined = joined.set_coords([name for name in ("conditioning",) if name in joined])
    with reading(path, run.attrs):
        for values in joined.variables.values():
            if not PICTURES & set(values.dims):
                values.load()
    return joined


def measurements(path: Path) -> xr.Dataset:
    """The run's group of measurements as it stands, empty if there is none."""
    if not (path / GROUP / "zarr.json").exists():
        return xr.Dataset()
    try:
        found = xr.open_zarr(path, group=GROUP, chunks=None, consolidated=False)
    except (ValueError, KeyError, OSError, RuntimeError) as error:
        raise RunError(
            f"{path}: its measurements cannot be read ({_first(error)}): remove {path / GROUP}, "
            f"then {says('measure')} {path}"
        ) from error
    return found.set_coords([name for name in ("conditioning",) if name in found])


def attributes(path: Path) -> dict[str, Any]:
    """The run's attributes as JSON values. Raises RunError for what is not a run, or of another schema."""
    if not path.exists():
        made = f": {says('probe')} ... out={path} makes one"
        raise RunError(f"no run {str(path)!r}{beside(path) or made}")
    file = path / "zarr.json"
    if not file.is_file():
        raise RunError(f"{path} is not a run, it has no zarr.json: {_instead(path)}")
    try:
        about = unpacked(json.loads(file.read_text())["attributes"])
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{path} is damaged, its zarr.json cannot be read: remove it and record it again"
        ) from error
    version = about.get("schema_version")
    if version is None:
        raise RunError(f"{path} is a Zarr store, but no run: it has no schema_version")
    if version not in READABLE:
        age = "older" if version < min(READABLE) else "newer"
        raise RunError(
            f"{path} is of an {age} schema, version {version}; this stepscope reads "
            f"{' and '.join(map(str, READABLE))}. {again(about, path)}"
        )
    return about


def _instead(path: Path) -> str:
    """What to name in place of a folder or file that is no run: the runs in it, or how one is made."""
    inside = sorted(map(str, path.glob("*.zarr"))) if path.is_dir() else []
    if not inside:
        return f"{says('probe')} and stepscope.record make runs"
    more = f" and {len(inside) - SHOWN} more" if len(inside) > SHOWN else ""
    return f"name the runs in it, {' '.join(inside[:SHOWN])}{more}"


@contextmanager
def reading(path: Path, about: Mapping[str, Any]) -> Iterator[None]:
    """Turn what xarray and Zarr raise on damaged files into one line."""
    try:
        yield
    except StepscopeError:
        raise
    except (ValueError, KeyError, OSError, RuntimeError) as error:
        raise RunError(f"{path} is damaged: {_first(error)}. {again(about, path)}") from error


def content(path: Path, name: str, sample: int) -> str:
    """Hash of one sample of a variable as recorded or read again, of its files: a chunk is one sample's."""
    folder = containing_group(path, name) / name
    array = Chunks(folder, json.loads((folder / "zarr.json").read_bytes()))
    found = hashlib.sha256()
    for file in array.files(sample):
        found.update(file.read_bytes())
    return found.hexdigest()


def _first(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
