"""Where a recording's calls go: a run on disk, written on a thread of its own."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stepscope.hooks.collect import Collected
from stepscope.hooks.fit import check_same_model
from stepscope.hooks.injections.fitted import on_places
from stepscope.hooks.labels import Label, check_labels
from stepscope.hooks.layout import Layout, full_variable
from stepscope.hooks.norm_buffer import Place
from stepscope.hooks.paths import check_writable, run_path
from stepscope.hooks.spool import Spool
from stepscope.hooks.store import Run
from stepscope.hooks.vocabulary import VARIABLES
from stepscope.hooks.writer import Writer, writing


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
        check_writable(self._path)
        self._about: Mapping[str, Any] = {}
        self._writer = writer
        self._spool: Spool | None = None
        self._made_one = False

    def expect(self, about: Mapping[str, Any]) -> None:
        """A call begins under these attributes. Raises RunError if the run is of another model or gone, and
        what failed while an earlier call was written."""
        self._about = about
        self._writer.raise_failed()
        if self._run is None and self._made_one:
            self._writer.settle()  # the first call makes the run
        if self._run is None:
            return
        self._run.check_present()
        check_same_model(self._run, about)
        photos = about.get("references", {})
        known = self._run.attributes.get("references", {})
        if photos.items() - known.items():
            self._run.annotate(references={**known, **photos})

    @property
    def run(self) -> Run | None:
        """The run, None while there is none."""
        return self._run

    def check_labels(self, labels: Sequence[Label], taken: Collection[str] = ()) -> None:
        """Raise RunError for a label that the run cannot hold.

        taken: names that a run which is not made yet will have for other things.
        """
        names = {name for label in labels for name in label}
        if self._made_one and not (self._run is not None and self._run.has(*names)):
            self._writer.settle()  # an earlier call says of which type they are
        if self._run is not None:
            self._run.check_labels(labels)
        else:
            check_labels(labels, taken=taken, where=str(self._path))

    def spool(self, tensors: Mapping[str, dict[Place, torch.Tensor]]) -> None:
        """Put the whole tensors that a step left on disk; memory holds those of one step.

        An error of the disk is left to the end of the call, which is not to be lost by it.
        """
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

        self._writer.leave(job)

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
        self._writer.leave(
            lambda: self._store(made, places, labels, extras, about, spool), lambda: _close(spool)
        )

    def abandon(self) -> None:
        """A call was not finished: what it spooled is not needed."""
        spool, self._spool = self._spool, None
        if spool is not None:
            self._writer.leave(spool.close, spool.close)

    def fail(self, error: Exception) -> None:
        """Raise this where a later call begins, or on leaving: no image is lost by it there."""

        def job() -> None:
            raise error

        self._writer.leave(job)

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
            run.check_present()
            if not run.has("not_finite"):  # made before runs told of it
                del arrays["not_finite"]
            arrays = on_places(arrays, made, run)
            arrays = {name: _on_axes(values, name, made, run) for name, values in arrays.items()}
            samples = [
                {name: values[i, ...] for name, values in arrays.items()} | dict(extras[i])
                for i in range(len(labels))
            ]
            # before anything is written: a call that does not fit adds nothing
            run.check_same_shapes(samples[0])
            _add_edits(run, about.get("edits", []))
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


def _add_edits(run: Run, edits: Sequence[Mapping[str, Any]]) -> None:
    """The run's attribute `edits` has each that was made in any call; samples tell which are theirs."""
    known = run.attributes.get("edits", [])
    new = [edit for edit in json.loads(json.dumps(edits)) if edit not in known]
    if new:
        run.annotate(edits=[*known, *new])


def _close(spool: Spool | None) -> None:
    if spool is not None:
        spool.close()


def _with_site(layout: Layout, site: str, shape: tuple[int, ...]) -> Layout:
    variables = layout.variables | {site: (full_variable(site, *shape[-2:]), shape)}
    return Layout(variables, layout.coordinates)


def _on_axes(values: np.ndarray, name: str, made: Collected, run: Run) -> np.ndarray:
    """A variable on the run's branches and streams, NaN where the call has none of them."""
    declared, _ = made.layout.variables.get(name, (VARIABLES.get(name), ()))
    if declared is None:
        return values
    for axis, mine in (("branch", made.axes.branches), ("stream", made.axes.streams)):
        if axis not in declared.dims:
            continue
        theirs = [str(v) for v in run.read(axis)]
        if theirs != list(mine):
            place = declared.dims.index(axis)
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
