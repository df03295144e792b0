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
from stepscope.hooks.ring import Ring
from stepscope.hooks.spool import Spool
from stepscope.hooks.store import Run
from stepscope.hooks.vocabulary import VARIABLES
from stepscope.hooks.whole import Whole, precision
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
        self._ring = Ring()
        self._spool = Spool(self._path, self._ring)
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

    def keep(self, site: str, place: Place, tensor: torch.Tensor) -> None:
        """Take what a site gave in a pass of the call under way, and put it on disk while the call goes on.

        Waits while what is on its way takes all of the memory for it. An error of the disk is left to the
        end of the call, which is not to be lost by it. Raises RunError where the run holds another
        precision.
        """
        if self._run is not None and place == (0, 0):
            self._run.check_precision(site, precision(tensor))
        self._spool.keep(site, place, tensor)

    def put(
        self,
        made: Collected,
        places: Sequence[int | None] | None,
        labels: Sequence[Label],
        extras: Sequence[Mapping[str, np.ndarray]],
    ) -> None:
        """Store a finished call. Raises nothing: its images are made, and the caller is to have them."""
        about, spool, self._spool = self._about, self._spool, Spool(self._path, self._ring)
        self._made_one = True
        self._writer.leave(
            lambda: self._store(made, places, labels, extras, about, spool), spool.close
        )

    def abandon(self) -> None:
        """A call was not finished: what it spooled is not needed."""
        spool, self._spool = self._spool, Spool(self._path, self._ring)
        if spool.sites:
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
        spool: Spool,
    ) -> None:
        """On the writer's thread, which alone touches the run."""
        try:
            spool.settle()
            arrays, layout = dict(made.samples), made.layout
            whole = {site: spool.whole(site, made.axes) for site in spool.sites}
            for site, samples in whole.items():
                layout = _with_site(layout, site, samples[0])
            if self._run is None:
                self._run = Run.at(self._path, layout, about)
            run = self._run
            run.check_present()
            if not run.has("not_finite"):  # made before runs told of it
                del arrays["not_finite"]
            arrays = on_places(arrays, made, run)
            arrays = {name: _on_axes(values, name, made, run) for name, values in arrays.items()}
            theirs = [str(name) for name in run.read("branch")]
            kept = {
                site: [one.on_branches([*made.axes.branches], theirs) for one in of_samples]
                for site, of_samples in whole.items()
            }
            samples = [
                {name: values[i, ...] for name, values in arrays.items()}
                | {site: of_samples[i] for site, of_samples in kept.items()}
                | dict(extras[i])
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
            spool.close()

    def close(self) -> None:
        """Remove what an unfinished call spooled; for when no job runs any more."""
        self._spool.close()


def _add_edits(run: Run, edits: Sequence[Mapping[str, Any]]) -> None:
    """The run's attribute `edits` has each that was made in any call; samples tell which are theirs."""
    known = run.attributes.get("edits", [])
    new = [edit for edit in json.loads(json.dumps(edits)) if edit not in known]
    if new:
        run.annotate(edits=[*known, *new])


def _with_site(layout: Layout, site: str, whole: Whole) -> Layout:
    *_, token, channel = whole.shape
    declared = full_variable(site, token, channel, whole.kind)
    variables = layout.variables | {site: (declared, whole.shape)}
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
