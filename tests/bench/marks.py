"""Marks in a document between which a measured table stands."""

from pathlib import Path


def put(path: Path, name: str, table: str) -> None:
    """Replace what stands between `<!-- bench:name -->` and `<!-- /bench:name -->`, if it does."""
    text, start, end = path.read_text(), f"<!-- bench:{name} -->", f"<!-- /bench:{name} -->"
    if start in text:
        head, _, rest = text.partition(start)
        path.write_text(f"{head}{start}\n{table}\n{end}{rest.partition(end)[2]}")
