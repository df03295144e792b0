"""One page with some samples of one or two runs inside: it opens from disk and asks for nothing."""

import base64
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepscope.analysis.explore.answers import answer, array
from stepscope.analysis.explore.document import document
from stepscope.analysis.explore.pictures import frames, media_type
from stepscope.analysis.explore.source import Source
from stepscope.analysis.explore.variables import about
from stepscope.analysis.explore.view import choose, samples, tokens

LARGEST = 384
"""Pixels of the longer side of the pictures in a saved page."""
MOST = 16 * 2**20
"""Bytes of samples in a page; Plotly's script is 5 MB more."""
TOKENS = 2 * 2**20
"""Bytes of token norms of a sample; one with more is saved without."""


@dataclass(frozen=True)
class Saved:
    """A page that was written. samples: how many of each run are in it, and how many were asked for."""

    path: Path
    samples: tuple[tuple[int, int], ...]

    def __str__(self) -> str:
        size = self.path.stat().st_size / 1e6
        told = [
            f"{a} sample{'s' * (a != 1)}" if a == b else f"{a} of {b} samples"
            for a, b in self.samples
        ]
        left = any(a < b for a, b in self.samples)
        cure = "; name those you want, --samples 0,7,9" if left else ""
        return f"{self.path}: {' and '.join(told)}, {size:.1f} MB{cure}"


def save(
    sources: Sequence[Source],
    path: Path,
    chosen: Sequence[Sequence[int] | None] | None = None,
    most: int = MOST,
) -> Saved:
    """Write the page. chosen: samples of each run, None for all that are done; most: bytes of samples.

    Samples are taken in turn from each run until the page is full. Raises ExploreError for a sample
    that is not there.
    """
    wanted = [choose(s, c) for s, c in zip(sources, chosen or [None] * len(sources), strict=True)]
    held: dict[str, Any] = {}
    kept: list[list[int]] = [[] for _ in sources]
    size = 0
    for run, sample in in_turn(wanted):
        new = dict(sample_answers(sources, run, sample))
        added = sum(len(json.dumps(value)) for value in new.values())
        if size + added > most and any(kept):
            break
        held |= new
        kept[run].append(sample)
        size += added
    for run, source in enumerate(sources):
        held[f"about?run={run}"] = about(source)
        held[f"samples?run={run}"] = samples(source) | {"kept": sorted(kept[run])}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document([source.name for source in sources], held), encoding="utf-8")
    return Saved(path, tuple((len(k), len(w)) for k, w in zip(kept, wanted, strict=True)))


def in_turn(wanted: Sequence[Sequence[int]]) -> Iterator[tuple[int, int]]:
    """(run, sample): the first of each run, then the second of each."""
    for place in range(max(map(len, wanted), default=0)):
        for run, chosen in enumerate(wanted):
            if place < len(chosen):
                yield run, chosen[place]


def sample_answers(
    sources: Sequence[Source], run: int, sample: int
) -> Iterator[tuple[str, dict[str, Any] | str]]:
    """Everything that the page may ask of a sample, by the question: pictures as addresses of data."""
    source, place = sources[run], f"run={run}&sample={sample}"
    found = answer(sources, "view", {"run": str(run), "sample": str(sample)})
    assert isinstance(found, dict)
    yield f"view?{place}", found
    if found["pictures"] != "none":
        for step, picture in enumerate(frames(source, sample, LARGEST)):
            yield f"frame?{place}&step={step}", address(picture)
    if not found["done"]:
        return
    if found["reference"]:
        picture = answer(sources, "face", {"run": str(run), "sample": str(sample)})
        assert isinstance(picture, bytes)
        yield f"face?{place}", address(picture)
    for name, shown in about(source)["variables"].items():
        if shown["kind"] == "tokens":
            values = source.contents().holding(name)[name]
            steps = values.sizes["step"] if values[0].nbytes <= TOKENS else 0
            for step in range(steps):
                question = f"tokens?{place}&step={step}&variable={name}"
                yield question, array(tokens(source, sample, step, name))


def address(picture: bytes) -> str:
    """A picture as an address that holds it; empty for none."""
    data = base64.b64encode(picture).decode()
    return f"data:{media_type(picture)};base64,{data}" if data else ""
