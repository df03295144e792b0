"""One sample of a run: its curves and maps, which samples there are, and its token norms of a step."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from stepscope.analysis.explore.marks import marks
from stepscope.analysis.explore.pictures import face, picture_kind
from stepscope.analysis.explore.source import ExploreError, Source, plain, rows
from stepscope.analysis.explore.variables import kind_of, variables
from stepscope.analysis.seeds import known_seeds

FIRST = ("face", "prompt", "seed")
"""Coordinates that every sample is known by, before those of the user's own labels."""


def samples(source: Source) -> dict[str, Any]:
    """Which samples the run has: their labels, and which are done.

    columns: name -> the words that occur, and of each sample the number of its word; the word is empty
    where a seed is not known. Only sample coordinates are read.
    """
    recorded = source.contents().recorded
    own = [str(n) for n, v in recorded.coords.items() if "label" in v.attrs]
    labels = [n for n in (*FIRST, *own) if n in recorded.coords and recorded[n].dims == ("sample",)]
    columns = {}
    for name in labels:
        words: dict[str, int] = {}
        values = list(map(str, recorded[name].values.tolist()))
        if name == "seed":
            known = known_seeds(recorded)
            values = [v if there else "" for v, there in zip(values, known, strict=True)]
        codes = [words.setdefault(value, len(words)) for value in values]
        if name in FIRST or len(words) > 1:
            columns[name] = {"words": list(words), "codes": codes}
    count = recorded.sizes.get("sample", 0)
    done = np.ones(count, bool)
    if "done" in recorded:
        done = marks(source.path, recorded["done"])
    return {"count": count, "columns": columns, "done": done.astype(int).tolist()}


def view(source: Source, sample: int, names: Sequence[str] | None = None) -> dict[str, Any]:
    """One sample: values of every map and curve, or of those named, and what its pictures are.

    values: name -> array of the variable's axes after `sample`, as it is stored; NaN where a step or
    a branch did not run. A variable that was not measured of the sample is left out, and so is every
    one of a sample that is not done. reference: whether there is a picture of whom it should show.
    Raises ExploreError for a sample or variable that is not there.
    """
    contents = source.contents()
    recorded = contents.recorded
    check_sample(source, recorded, sample)
    shown = variables(contents)
    for name in names or ():
        if name not in shown:
            raise ExploreError(f"no variable {name!r} to show; known: {', '.join(shown)}")
    done = contents.is_done(sample)
    values = {}
    for name, about in shown.items() if done else ():
        if about["kind"] == "tokens" or (names is not None and name not in names):
            continue
        if about["group"] and not contents.is_measured(name, sample):
            continue
        values[name] = rows(contents.holding(name)[name], sample)
    ran = recorded["steps_run"][sample].values if "steps_run" in recorded else -1
    kind, note = picture_kind(source, sample) if done else ("none", "")
    return {
        "sample": sample,
        "done": done,
        "steps_run": int(ran),
        "pictures": kind,
        "note": note,
        "reference": done and face(source, sample) is not None,
        "values": values,
    }


def tokens(source: Source, sample: int, step: int, name: str) -> np.ndarray:
    """Norms of the image tokens at a step: (branch, block, token_y, token_x), or as the variable has it.

    Raises ExploreError for a sample, step or variable that is not there.
    """
    contents = source.contents()
    values = contents.holding(name)[name]
    if kind_of(values) != "tokens":
        raise ExploreError(f"{name!r} has no values of single tokens")
    check_sample(source, contents.recorded, sample)
    check_step(source, contents.recorded, step)
    return values.isel(sample=sample, step=step).values


def check_sample(source: Source, recorded: xr.Dataset, sample: int) -> None:
    """Raise ExploreError where the run has no such sample."""
    count = recorded.sizes.get("sample", 0)
    if not 0 <= sample < count:
        raise ExploreError(f"{source.text} has {count} samples, from 0: no sample {sample}")


def check_step(source: Source, recorded: xr.Dataset, step: int) -> None:
    """Raise ExploreError where the run has no such step."""
    count = recorded.sizes.get("step", 0)
    if not 0 <= step < count:
        raise ExploreError(f"{source.text} has {count} steps, from 0: no step {step}")


def choose(source: Source, wanted: Sequence[int] | None) -> list[int]:
    """The samples that were asked for, or all that are done. Raises ExploreError for one not there."""
    recorded = source.contents().recorded
    if wanted is not None:
        for sample in wanted:
            check_sample(source, recorded, sample)
        return list(wanted)
    return [i for i, done in enumerate(samples(source)["done"]) if plain(done)]
