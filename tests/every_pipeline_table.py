"""The table of pipeline classes in the documentation, made by recording each of them."""

import argparse
import tempfile
from pathlib import Path

from tests.every_pipeline import build, modules
from tests.every_pipeline_calls import Call, has_call
from tests.every_pipeline_made import variants
from tests.every_pipeline_outcome import Outcome, entry, outcome

HEAD = """# Pipeline classes

This table lists every class of diffusers 0.42 whose source annotates a FLUX transformer or a U-Net of
Stable Diffusion. `record` either accepts a class, and then every number that it stores is right, or refuses
it when recording begins, before the first step. For each row, a test records a tiny random pipeline of the
class and compares every number with plain torch hooks (`tests/test_every_pipeline.py`). The call makes two
images of two prompts, with guidance and perturbation where the class supports them.
`python -m tests.every_pipeline --into docs/pipelines.md` makes this file.

A branch that did not run at a step is NaN there: without classifier-free guidance, or after a callback
has ended it, there is no negative branch. A stream that a call does not have is NaN or absent. If FLUX
receives prompt embeddings that were made before recording began, `text` and `padding` are NaN.
"""


def representative(name: str) -> Call:
    """The call that shows the most branches of a class."""
    calls = variants(name)
    words = frozenset({"guided", "perturbed"})
    return next((call for call in calls if call.words == words), calls[0])


def outcome_of(name: str, folder: Path) -> Outcome:
    """What comes of recording the class: of its call, or of entering `record` where none is known."""
    if has_call(name):
        return outcome(representative(name), folder)
    return entry(build(name), folder)


def row(name: str, found: Outcome) -> str:
    """A line of the table. Raises ValueError for an outcome that is neither right nor a refusal."""
    if found.wrong:
        raise ValueError(f"{name}: {'; '.join(found.wrong)}")
    if found.refused:
        return f"| {name} | refused: {found.refused} | | | |"
    streams = [", ".join(found.streams[f"{q}_norm"]) for q in ("attention", "residual")]
    return f"| {name} | right | {', '.join(found.branches)} | {streams[0]} | {streams[1]} |"


def table() -> str:
    """The whole file."""
    heads = ["| class | recorded | branches | streams of attention_norm | of residual_norm |"]
    heads.append("| --- | --- | --- | --- | --- |")
    rows = []
    for name in sorted(modules()):
        with tempfile.TemporaryDirectory() as folder:
            rows.append(row(name, outcome_of(name, Path(folder))))
    return "\n".join([HEAD, *heads, *rows, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, help="write the table into this file, or show it")
    into = parser.parse_args().into
    if into is None:
        print(table())
    else:
        made = table()
        into.parent.mkdir(parents=True, exist_ok=True)
        into.write_text(made)
