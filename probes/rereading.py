"""A finished run as it is read again: its study, cells and latents, and the groups that are filled."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from hooks import atomic
from hooks.documents import FILE, SCRATCH
from hooks.errors import RunError, StepscopeError
from hooks.layout import Layout
from hooks.store import Run
from hooks.vocabulary import SAMPLE_COORDINATES, VARIABLES, Variable
from probes import grid
from probes.identity import PLACES
from probes.plan import EXTRA_SHAPES, EXTRAS
from probes.provenance import configuration
from probes.study import Study

GROUP = "reread"
EARLY = 4
"""Steps from which each is one of the usual `off_from`; then 6, 8 and every fourth."""
_LATENT = ("channel", "y", "x")
DECLARED = {
    "carried_x0": Variable(
        ("sample", "step", *_LATENT),
        "float32",
        "1",
        "estimate of the clean latents from one evaluation at the recorded x_t with the adapter off; "
        "NaN where the sample was not read again",
    ),
    "swapped_x0": Variable(
        ("sample", "step", *_LATENT),
        "float32",
        "1",
        "estimate of the clean latents from one evaluation at the recorded x_t with another person's face "
        "given to the adapter (attribute `others`); NaN where the sample was not read again",
    ),
    "committed_latents": Variable(
        ("sample", "off_from", *_LATENT),
        "float32",
        "1",
        "final latents with the adapter as recorded before step `off_from` and off from there to the end; "
        "the last are the run's own; NaN where the sample was not read again",
    ),
    **{
        f"swapped_{name}": replace(
            declared, long_name=f"of the face that was given instead: {declared.long_name}"
        )
        for name, declared in EXTRAS.items()
    },
}
OF = {
    "carried": ("carried_x0",),
    "swapped": ("swapped_x0", *(f"swapped_{name}" for name in EXTRAS)),
    "committed": ("committed_latents",),
}
"""Variables of each reading."""


@dataclass(frozen=True)
class Rereading:
    """A finished run. study: as it was recorded, with `places` for what has moved."""

    path: Path
    store: Run
    study: Study
    cells: tuple[grid.Cell, ...]
    latent_shape: tuple[int, int, int]
    sigma: np.ndarray

    @property
    def steps(self) -> int:
        return len(self.sigma)

    @property
    def others(self) -> dict[str, str]:
        """Whose face each face is swapped for: the next one of the run, so that each is given once.

        Raises StepscopeError for a run of one face.
        """
        faces = list(dict.fromkeys(cell.face for cell in self.cells))
        if len(faces) < 2:
            raise StepscopeError(
                f"{self.path} has one face, {faces[0]!r}: there is no other to swap it for; "
                "readings=[carried,committed] need none"
            )
        return dict(zip(faces, [*faces[1:], faces[0]], strict=True))

    def read(self, name: str, samples: Sequence[int]) -> np.ndarray:
        """Some samples of a variable; no others are read from disk."""
        values = xr.open_zarr(self.path, chunks=None)[name]
        return np.stack([values[i].values for i in samples])

    def seconds_an_evaluation(self) -> float:
        """Median seconds of a step of the run over its batch, both branches and the adapter counted."""
        seconds = self.store.read("step_seconds") / self.store.read("batch_size")[:, None]
        return float(np.median(seconds))

    def folder(self, reading: str) -> Path:
        """Where a reading's group lies."""
        return self.path / GROUP / reading

    def target(self, reading: str, cells: Sequence[grid.Cell], off: Sequence[int]) -> "Target":
        """What a reading is to fill. Raises RunError for one that is there with other steps."""
        others = self.others if reading == "swapped" else {}
        target = Target(self, reading, tuple(cells), (*off, self.steps) if off else (), others)
        if target.store is not None and off:
            there = target.store.read("off_from").tolist()
            if there != list(target.off):
                raise RunError(
                    f"{self.folder(reading)} is of off_from={there[:-1]}, not {list(off)}: name those, "
                    "or remove it"
                )
        return target


@dataclass(frozen=True)
class Target:
    """A reading's group: made at the first sample, filled sample by sample, `done` last."""

    run: Rereading
    reading: str
    cells: tuple[grid.Cell, ...]
    off: tuple[int, ...]
    others: Mapping[str, str]

    @property
    def store(self) -> Run | None:
        """The group as it stands, None if there is none."""
        folder = self.run.folder(self.reading)
        return Run.open(folder) if folder.exists() else None

    def left(self) -> list[grid.Cell]:
        """The cells that are not read yet."""
        if self.store is None:
            return list(self.cells)
        done = self.store.done
        return [cell for cell in self.cells if not done[cell.index]]

    def ready(self, check: Mapping[str, float]) -> "Target":
        """Make the group where there is none, and note which samples it is to have."""
        wanted = {cell.index for cell in self.cells}
        store = self.store
        if store is None:
            root = self.run.path / GROUP
            if not (root / FILE).exists():
                group = {"zarr_format": 3, "node_type": "group", "attributes": {}}
                atomic.put(root / FILE, json.dumps(group).encode(), self.run.path / SCRATCH)
            store = Run.create(self.run.folder(self.reading), self.layout(), self.labels(), {})
        # Killed before, a group that was just made lacks them.
        store.write_steps({name: self.run.store.read(name) for name in ("sigma", "timestep")})
        wanted |= set(store.attributes.get("samples", ()))
        store.annotate(
            reading=self.reading,
            samples=sorted(wanted),
            others=dict(self.others),
            check=dict(check),
            configuration=configuration(self.run.study),
        )
        return self

    def write(self, batch: Sequence[grid.Cell], values: Mapping[str, np.ndarray]) -> None:
        """Write the samples of a batch."""
        store = self.store
        assert store is not None
        for i, cell in enumerate(batch):
            store.write(cell.index, {name: value[i] for name, value in values.items()})

    def labels(self) -> list[dict[str, Any]]:
        """Of the run's samples, so that the group says itself what it holds."""
        columns = {name: self.run.store.read(name) for name in SAMPLE_COORDINATES}
        return [
            {name: values[i] for name, values in columns.items()}
            for i in range(len(self.run.cells))
        ]

    def layout(self) -> Layout:
        """A place for each sample of the run."""
        along = len(self.off) if self.off else self.run.steps
        variables: dict[str, tuple[Variable, tuple[int, ...]]] = {
            "done": (VARIABLES["done"], ()),
            **{name: (VARIABLES[name], (self.run.steps,)) for name in ("sigma", "timestep")},
        }
        for name in OF[self.reading]:
            given = EXTRA_SHAPES.get(name.removeprefix("swapped_"))
            variables[name] = DECLARED[name], given or (along, *self.run.latent_shape)
        coordinates: dict[str, tuple[str, np.ndarray]] = {
            "step": ("step", np.arange(self.run.steps))
        }
        if self.off:
            sigma = np.append(self.run.sigma, np.float32(0))[list(self.off)]
            coordinates["off_from"] = ("off_from", np.array(self.off))
            coordinates["off_sigma"] = ("off_from", sigma)
        return Layout(variables, coordinates)


def opened(path: str | Path, places: Mapping[str, str] | None = None) -> Rereading:
    """A finished run to read again.

    places: of models that have moved, by key of the configuration, e.g. `backbone.path`. Raises
    RunError for what is no finished run of `python -m probes`, StepscopeError for an unknown place.
    """
    path = Path(path)
    store = Run.open(path)
    made = store.attributes.get("configuration")
    if made is None:
        raise RunError(f"{path} was not made by `python -m probes`: its models are not known")
    if not store.done.all():
        raise RunError(f"{path} is unfinished: the command that made it continues")
    columns = zip(*(store.read(name) for name in ("face", "prompt", "seed")), strict=True)
    cells = tuple(grid.Cell(i, str(f), str(p), int(s)) for i, (f, p, s) in enumerate(columns))
    channel, y, x = xr.open_zarr(path, chunks=None)["final_latents"].shape[1:]
    study = study_of(made, places or {})
    return Rereading(path, store, study, cells, (channel, y, x), store.read("sigma"))


def study_of(made: Mapping[str, Any], places: Mapping[str, str]) -> Study:
    """The study of a run's recorded configuration."""
    values = {"record" if key == "capture" else key: value for key, value in made.items()}
    if values.get("adapter") is None:
        values["adapter"] = {"name": "none"}
    for key, place in places.items():
        if key not in PLACES:
            raise StepscopeError(f"places: no {key!r}; known: {', '.join(PLACES)}")
        part, _, word = key.partition(".")
        values[part] = {**values[part], word: place}
    return Study.from_config({**values, "out": None, "dry": False})


def usual_steps_off(steps: int) -> tuple[int, ...]:
    """The steps from which the adapter is off where none is named, of a run of so many."""
    return tuple(k for k in range(steps) if k <= EARLY or k == 6 or k % 4 == 0)


def steps_off(run: Rereading, given: Sequence[int] | None) -> tuple[int, ...]:
    """The steps from which the adapter is to be off, rising, without the run's end, which is added.

    Raises StepscopeError for a step that the run has not.
    """
    n = run.steps
    if given is None:
        return usual_steps_off(n)
    if not given:
        raise StepscopeError("off_from is empty: name a step, or off_from=null for the usual ones")
    for k in given:
        if isinstance(k, bool) or not isinstance(k, int) or not 0 <= k < n:
            raise StepscopeError(f"off_from={list(given)}: {run.path} has steps 0 to {n - 1}")
    return tuple(sorted(set(given)))
