"""Where a recording's calls go: a run on disk, written on a thread of its own."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stepscope.hooks.assemble import Axes
from stepscope.hooks.collect import Collected
from stepscope.hooks.errors import RunError
from stepscope.hooks.labels import Label, refuse_labels
from stepscope.hooks.layout import Layout, full_variable
from stepscope.hooks.paths import refuse_unwritable, run_path
from stepscope.hooks.spool import Spool
from stepscope.hooks.store import Run
from stepscope.hooks.tape import Place
from stepscope.hooks.writer import Writer, writing

# What says which model a run is of. Its adapters, guidance and seeds are told call by call.
MODEL = ("models", "dtype", "autocast", "pipeline", "scheduler", "capture")

SHOWN = 3  # differences that one line names


@contextmanager
def storing(out: str | Path | Run) -> Iterator["Sink"]:
    """Where calls go; leaving waits until they are written. Raises what failed on the writer's thread."""
    with ExitStack() as after, writing() as writer:
        sink = Sink(out, writer)
        after.callback(sink.close)
        yield sink


class Sink:
    """A run that calls are added to, or whose places they fill; made by the first call if there is none.

    out: the run's path, or a run that has places.
    """

    def __init__(self, out: str | Path | Run, writer: Writer) -> None:
        # absolute: the caller may change the working folder before the next call
        self._path = out.path if isinstance(out, Run) else run_path(out).absolute()
        self._run = out if isinstance(out, Run) else None
        if self._run is None and self._path.exists():
            self._run = Run.open(self._path)
        refuse_unwritable(self._path)
        self._about: Mapping[str, Any] = {}
        self._writer = writer
        self._spool: Spool | None = None
        self._made_one = False

    def expect(self, about: Mapping[str, Any]) -> None:
        """A call begins under these attributes. Raises RunError if the run is of another model, and what
        failed while an earlier call was written."""
        self._about = about
        self._writer.raise_failed()
        if self._run is None and self._made_one:
            self._writer.settle()  # the first call makes the run
        if self._run is None:
            return
        for name in MODEL:
            then, now = self._run.attributes.get(name), json.loads(json.dumps(about[name]))
            if then is not None and then != now:
                raise RunError(
                    f"{self._path} was recorded with another {_difference(name, then, now)}. Record into "
                    "another run"
                )

        photos = about.get("references", {})
        known = self._run.attributes.get("references", {})
        if photos.items() - known.items():
            self._run.annotate(references={**known, **photos})

    def refuse_other_schedule(self, timesteps: Sequence[float]) -> None:
        """Raise RunError if the run's timesteps are no part of those that the scheduler was set to."""
        if self._run is None:
            return
        theirs = self._run.read("timestep")
        steps = len(theirs)
        mine = np.array(timesteps, np.float32)
        parts = [mine[i : i + steps] for i in range(len(mine) - steps + 1)]
        if not np.isnan(theirs).all() and not any(np.array_equal(p, theirs) for p in parts):
            raise RunError(
                f"{self._path} was recorded on another schedule: {steps} steps at timesteps "
                f"{theirs[0]:.6g} to {theirs[-1]:.6g}, and this call has {len(mine)} at {mine[0]:.6g} to "
                f"{mine[-1]:.6g}. Record into another run"
            )

    def refuse_labels(self, labels: Sequence[Label]) -> None:
        """Raise RunError for a label that the run cannot hold."""
        if self._run is not None:
            self._run.refuse_labels(labels)
        else:
            refuse_labels(labels, where=str(self._path))

    def refuse_other(self, axes: Axes) -> None:
        """Raise RunError if the run has other axes than a call that has begun."""
        if self._run is None:
            return
        for axis, names, mine in (
            ("branch", "branches", axes.branches),
            ("stream", "streams", axes.streams),
        ):
            theirs = self._run.read(axis).tolist()
            if not set(mine) <= set(theirs):
                raise RunError(
                    f"{self._path} has the {names} {', '.join(theirs)}, and this call has "
                    f"{', '.join(mine)}: record into another run"
                )

    def refuse_image(self, image: bool) -> None:
        """Raise RunError if the run has images and the call makes none, or the other way round."""
        if self._run is not None:
            self._run.refuse_image(image)

    def refuse_ends(self, ends: Mapping[str, tuple[int, ...]]) -> None:
        """Raise RunError for variables whose last axes are of another size in the run."""
        if self._run is not None:
            self._run.refuse_ends(ends)

    def spool(self, tensors: Mapping[str, dict[Place, torch.Tensor]]) -> None:
        """Put the whole tensors that a step left on disk; memory holds those of one step."""
        if not tensors:
            return
        taken = [(site, place, t) for site, seen in tensors.items() for place, t in seen.items()]
        for seen in tensors.values():
            seen.clear()
        ready = _copied(taken)
        if self._spool is None:
            self._spool = Spool(self._path)
        spool = self._spool

        def job() -> None:
            if ready is not None:
                ready.synchronize()
            for site, place, tensor in taken:
                spool.put(site, place, tensor)

        self._writer.put(job)

    def put(
        self,
        made: Collected,
        places: Sequence[int | None] | None,
        labels: Sequence[Label],
        extras: Sequence[Mapping[str, np.ndarray]],
    ) -> None:
        """Store a finished call. Raises nothing: its images are made, and the caller is to have them."""
        about, spool, self._spool = self._about, self._spool, None
        self._made_one = True
        self._writer.leave(lambda: self._store(made, places, labels, extras, about, spool))

    def abandon(self) -> None:
        """A call was not finished: what it spooled is not needed."""
        spool, self._spool = self._spool, None
        if spool is not None:
            self._writer.leave(spool.close)

    def _store(
        self,
        made: Collected,
        places: Sequence[int | None] | None,
        labels: Sequence[Label],
        extras: Sequence[Mapping[str, np.ndarray]],
        about: Mapping[str, Any],
        spool: Spool | None,
    ) -> None:
        """On the writer's thread, which alone touches the run."""
        try:
            arrays, layout = dict(made.samples), made.layout
            for site in self._sites(spool):
                assert spool is not None
                arrays[site] = spool.stacked(site, made.axes)
                layout = _with_site(layout, site, arrays[site].shape[1:])
            if self._run is None:
                self._run = Run.at(self._path, layout, about)
            run = self._run
            arrays = {name: _on_axes(values, name, made, run) for name, values in arrays.items()}
            samples = [
                {name: values[i] for name, values in arrays.items()} | dict(extras[i])
                for i in range(len(labels))
            ]
            # before anything is written: a call that does not fit adds nothing
            run.refuse_other(samples[0])
            run.write_steps(made.steps)
            if places is None:
                run.append(labels, samples)
                return
            for place, sample in zip(places, samples, strict=True):
                if place is not None:
                    run.write(place, sample)
        finally:
            _close(spool)

    def _sites(self, spool: Spool | None) -> list[str]:
        return [] if spool is None else spool.sites

    def close(self) -> None:
        """Remove what an unfinished call spooled; for when no job runs any more."""
        _close(self._spool)


def _close(spool: Spool | None) -> None:
    if spool is not None:
        spool.close()


def _with_site(layout: Layout, site: str, shape: tuple[int, ...]) -> Layout:
    variables = layout.variables | {site: (full_variable(site, *shape[-2:]), shape)}
    return Layout(variables, layout.coordinates)


def _on_axes(values: np.ndarray, name: str, made: Collected, run: Run) -> np.ndarray:
    """A variable on the run's branches and streams, NaN where the call has none of them."""
    declared = made.layout.variables.get(name)
    if declared is None:
        return values
    for axis, mine in (("branch", made.axes.branches), ("stream", made.axes.streams)):
        if axis not in declared[0].dims:
            continue
        theirs = [str(v) for v in run.read(axis)]
        if theirs != list(mine):
            place = declared[0].dims.index(axis)
            shape = [*values.shape]
            shape[place] = len(theirs)
            spread = np.full(shape, np.nan, values.dtype)
            index: list[Any] = [slice(None)] * values.ndim
            index[place] = [theirs.index(v) for v in mine]
            spread[tuple(index)] = values
            values = spread
    return values


def _copied(taken: Sequence[tuple[str, Place, torch.Tensor]]) -> Any:
    """An event after the copies from a GPU to the host; None if there is nothing to wait for."""
    if not any(tensor.is_pinned() for _, _, tensor in taken):
        return None
    event = torch.cuda.Event()
    event.record()
    return event


def _difference(name: str, then: Any, now: Any) -> str:
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        other = [key for key in {**now, **then} if then.get(key) != now.get(key)]
        shown = ", ".join(f"{key} {then.get(key)} -> {now.get(key)}" for key in other[:SHOWN])
        return f"{name}: {shown}" + (f" and {len(other) - SHOWN} more" if other[SHOWN:] else "")
    return f"{name}: {then} -> {now}"
