"""What the page asks for and what it gets: the same questions by the server, and once for all on disk."""

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from stepscope.analysis.explore.pictures import encoded, face, frames
from stepscope.analysis.explore.source import ExploreError, Source
from stepscope.analysis.explore.variables import about
from stepscope.analysis.explore.view import check_sample, samples, tokens, view

Question = Mapping[str, str]


def answer(sources: Sequence[Source], name: str, question: Question) -> dict[str, Any] | bytes:
    """The answer to a question: JSON values with arrays as `array`, or an encoded picture.

    name: one of `ANSWERS`. question: `run` is the run's place among the sources, and what the function
    there reads. Raises ExploreError for what is not there.
    """
    if name not in ANSWERS:
        raise ExploreError(f"no answer to {name!r}; known: {', '.join(ANSWERS)}")
    run = number(question, "run")
    if not 0 <= run < len(sources):
        raise ExploreError(f"no run {run}: there are {len(sources)}, from 0")
    return ANSWERS[name](sources[run], question)


def _view(source: Source, question: Question) -> dict[str, Any]:
    found = view(source, number(question, "sample"))
    return found | {"values": {name: array(values) for name, values in found["values"].items()}}


def _tokens(source: Source, question: Question) -> dict[str, Any]:
    place = number(question, "sample"), number(question, "step")
    return array(tokens(source, *place, question.get("variable", "")))


def _frame(source: Source, question: Question) -> bytes:
    made = frames(source, number(question, "sample"))
    step = number(question, "step")
    if not 0 <= step < len(made):
        raise ExploreError(f"{source.text} has {len(made)} steps, from 0: no step {step}")
    return made[step]


def _face(source: Source, question: Question) -> bytes:
    sample = number(question, "sample")
    check_sample(source, source.contents().recorded, sample)
    crop = face(source, sample)
    return b"" if crop is None else encoded(crop, crop.shape[0])


ANSWERS: dict[str, Callable[[Source, Question], dict[str, Any] | bytes]] = {
    "about": lambda source, question: about(source),
    "samples": lambda source, question: samples(source),
    "view": _view,
    "frame": _frame,
    "face": _face,
    "tokens": _tokens,
}


def number(question: Question, key: str) -> int:
    """A whole number of the question. Raises ExploreError where it is none."""
    text = question.get(key, "")
    try:
        return int(text)
    except ValueError:
        raise ExploreError(f"{key}={text!r} is no whole number") from None


def array(values: np.ndarray) -> dict[str, Any]:
    """An array as JSON: its shape, and little-endian float32 or float64 numbers in base64.

    Integers and other floats become float64, which holds those that are recorded.
    """
    kind = "float32" if values.dtype == np.float32 else "float64"
    data = np.ascontiguousarray(values, np.dtype(kind).newbyteorder("<")).tobytes()
    return {"shape": list(values.shape), "kind": kind, "data": base64.b64encode(data).decode()}
