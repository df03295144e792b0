"""A finished run to read again: its study, cells and latents, and the groups that readings fill."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from stepscope.hooks import atomic
from stepscope.hooks.documents import FILE, SCRATCH
from stepscope.hooks.errors import RunError, StepscopeError
from stepscope.hooks.layout import Layout
from stepscope.hooks.store import Run
from stepscope.hooks.vocabulary import SAMPLE_COORDINATES, VARIABLES, Variable
from stepscope.probes import grid
from stepscope.probes.face_variables import SHAPES
from stepscope.probes.kept_faces import values_of
from stepscope.probes.model_files import places_of, role_of
from stepscope.probes.provenance import configuration
from stepscope.probes.readings import DECLARED, GROUP, READING_VARIABLES, default_steps_off
from stepscope.probes.study import Study
from stepscope.probes.usage import says


@dataclass(frozen=True)
class Rereading:
    """A finished run to read again.

    study: as recorded, with `places` for models that have moved. cells: of all samples, in order.
    latent_shape: channel, y, x. sigma: noise level (step,) before each step, as the scheduler has it.
    """

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
        """The face that replaces each face: the next one of the run, so that each is used once.

        Raises StepscopeError for a run of one face, or whose adapter reads none.
        """
        if self.not_swapped:
            raise StepscopeError(
                f"{self.path} {self.not_swapped}; readings=[carried,committed] and edit=adapter_window "
                "need none"
            )
        return dict(zip(self._faces, [*self._faces[1:], self._faces[0]], strict=True))

    @property
    def not_swapped(self) -> str:
        """Why no other face can be given; empty where one can."""
        if not self.study.reads:
            return "has an adapter that is given no face or picture: there is none to swap"
        if len(self._faces) < 2:
            return f"has one face, {self._faces[0]!r}: there is no other to swap it for"
        return ""

    @property
    def _faces(self) -> list[str]:
        return list(dict.fromkeys(cell.face for cell in self.cells))

    def read(self, name: str, samples: Sequence[int]) -> np.ndarray:
        """Values (sample, ...) of some samples of a variable; only these are read from disk."""
        values = xr.open_zarr(self.path, chunks=None)[name]
        return np.stack([values[i].values for i in samples])

    def face(self, name: str, samples: Sequence[int]) -> np.ndarray:
        """A variable of `face_variables`; NaN or 0 in a run whose adapters read no face."""
        if self.store.has(name):
            return self.read(name, samples)
        return np.stack([values_of(None, {"face"})[name]] * len(samples))

    def seconds_an_evaluation(self) -> float:
        """Median seconds of a step of the run for one sample, including both branches and the adapter."""
        seconds = self.store.read("step_seconds") / self.store.read("batch_size")[:, None]
        return float(np.median(seconds))

    def folder(self, reading: str) -> Path:
        """The folder of a reading's group."""
        return self.path / GROUP / reading

    def target(self, reading: str, cells: Sequence[grid.Cell], off: Sequence[int]) -> "Target":
        """The group that a reading of these cells fills.

        off: steps of `committed`, empty for other readings. Raises RunError where the group exists with
        other steps.
        """
        others = self.others if reading == "swapped" else {}
        target = Target(self, reading, tuple(cells), (*off, self.steps) if off else (), others)
        if target.store is not None and off:
            existing = target.store.read("off_from").tolist()
            if existing != list(target.off):
                raise RunError(
                    f"{self.folder(reading)} has off_from={existing[:-1]}, not {list(off)}: use these, "
                    "or remove the folder"
                )
        return target


@dataclass(frozen=True)
class Target:
    """A reading's group: created before the first sample, filled sample by sample, `done` last.

    cells: the requested samples. off: steps of `committed` and the run's end, else empty. others: the face
    that replaces each face in `swapped`, else empty.
    """

    run: Rereading
    reading: str
    cells: tuple[grid.Cell, ...]
    off: tuple[int, ...]
    others: Mapping[str, str]

    @property
    def store(self) -> Run | None:
        """The group, None where it does not exist yet."""
        folder = self.run.folder(self.reading)
        return Run.open(folder) if folder.exists() else None

    def remaining(self) -> list[grid.Cell]:
        """The requested cells that are not read yet."""
        if self.store is None:
            return list(self.cells)
        done = self.store.done
        return [c for c in self.cells if c.index >= len(done) or not done[c.index]]

    def prepare(self, check: Mapping[str, float]) -> "Target":
        """Create the group where there is none, and add the requested samples to its attributes.

        check: deviations of the reproduced sample, as an attribute.
        """
        wanted = {cell.index for cell in self.cells}
        store = self.store
        if store is None:
            root = self.run.path / GROUP
            if not (root / FILE).exists():
                group = {"zarr_format": 3, "node_type": "group", "attributes": {}}
                atomic.put(root / FILE, json.dumps(group).encode(), self.run.path / SCRATCH)
            store = Run.create(self.run.folder(self.reading), self.layout(), self.labels(), {})
        store.extend(self.labels()[store.size :], {}, size=store.size)  # the run has grown
        # A group whose creation was interrupted lacks them.
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
        """Write the values (sample, ...) of a batch of cells, by variable. Call `prepare` before."""
        store = self.store
        assert store is not None
        for i, cell in enumerate(batch):
            store.write(cell.index, {name: value[i] for name, value in values.items()})

    def labels(self) -> list[dict[str, Any]]:
        """The face, prompt and seed of the run's samples, which the group repeats."""
        columns = {name: self.run.store.read(name) for name in SAMPLE_COORDINATES}
        return [
            {name: values[i] for name, values in columns.items()}
            for i in range(len(self.run.cells))
        ]

    def layout(self) -> Layout:
        """Variables and coordinates of the group, with all samples of the run."""
        along = len(self.off) if self.off else self.run.steps
        variables: dict[str, tuple[Variable, tuple[int, ...]]] = {
            "done": (VARIABLES["done"], ()),
            **{name: (VARIABLES[name], (self.run.steps,)) for name in ("sigma", "timestep")},
        }
        for name in READING_VARIABLES[self.reading]:
            given = SHAPES.get(name.removeprefix("swapped_"))
            variables[name] = DECLARED[name], given or (along, *self.run.latent_shape)
        coordinates: dict[str, tuple[str, np.ndarray]] = {
            "step": ("step", np.arange(self.run.steps))
        }
        if self.off:
            sigma = np.append(self.run.sigma, np.float32(0))[list(self.off)]
            coordinates["off_from"] = ("off_from", np.array(self.off))
            coordinates["off_sigma"] = ("off_from", sigma)
        return Layout(variables, coordinates)


def add_to_readings(run: Path, labels: Sequence[Mapping[str, Any]]) -> None:
    """Places for further samples of a run, in its readings too: none of them is read again."""
    for folder in sorted((run / GROUP).glob(f"*/{FILE}")):
        store = Run.open(folder.parent)
        store.extend(labels, {}, size=store.size)


def open_rereading(path: str | Path, places: Mapping[str, str] | None = None) -> Rereading:
    """Open a finished run to read it again.

    places: new paths of models that have moved, by key of the configuration, e.g. `backbone.path`. Raises
    RunError for a path that is not a finished run of `stepscope probe`, StepscopeError for an unknown key.
    """
    path = Path(path)
    store = Run.open(path)
    config = store.attributes.get("configuration")
    if config is None:
        raise RunError(f"{path} was not made by `{says('probe')}`: its models are unknown")
    if not store.done.all():
        raise RunError(f"{path} is unfinished: the command that made it continues it")
    columns = zip(*(store.read(name) for name in ("face", "prompt", "seed")), strict=True)
    cells = tuple(grid.Cell(i, str(f), str(p), int(s)) for i, (f, p, s) in enumerate(columns))
    channel, y, x = xr.open_zarr(path, chunks=None)["final_latents"].shape[1:]
    study = study_of(config, places or {})
    return Rereading(path, store, study, cells, (channel, y, x), store.read("sigma"))


def study_of(config: Mapping[str, Any], places: Mapping[str, str]) -> Study:
    """The study of a run's recorded configuration. Raises StepscopeError for an unknown place."""
    if config.get("edits"):
        raise StepscopeError(
            "it was recorded with edits, which reread does not apply: name a run without edits"
        )
    values = {"record" if key == "capture" else key: value for key, value in config.items()}
    if values.get("adapter") is None:
        values["adapter"] = {"name": "none"}
    for key, path in places.items():
        if role_of(key) is None:
            raise StepscopeError(f"places: no {key!r}; known: {', '.join(places_of(values))}")
        *parts, word = key.split(".")
        within = values
        for part in parts:
            within[part] = dict(within.get(part) or {})
            within = within[part]
        within[word] = path
    return Study.from_config({**values, "out": None, "dry": False})


def steps_off(run: Rereading, given: Sequence[int] | None) -> tuple[int, ...]:
    """The steps from which the adapter is off, ascending, without the run's end; None is the default.

    Raises StepscopeError for a step that the run does not have.
    """
    n = run.steps
    if given is None:
        return default_steps_off(n)
    if not given:
        raise StepscopeError("off_from is empty: name a step, or off_from=null for the default")
    for k in given:
        if isinstance(k, bool) or not isinstance(k, int) or not 0 <= k < n:
            raise StepscopeError(f"off_from={list(given)}: {run.path} has steps 0 to {n - 1}")
    return tuple(sorted(set(given)))
