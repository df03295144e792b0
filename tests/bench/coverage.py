"""Coverage of every interval in simulated studies: `python -m tests.bench.coverage` (some 10 min).

Prints a Markdown table, in percent of the studies, at a nominal 95: the recommended interval for 8, 12
and 24 faces, and for 12 faces, on the same studies, the one that it replaces. One share has a
standard error of 0.7 points with 1,000 studies, of 0.35 with `--studies 4000`. Rows that are not
asked for stay in the file as they are.
"""

import argparse
from pathlib import Path

from stepscope.analysis.coverage import CASES
from stepscope.analysis.coverage_case import Case, Percentile
from tests.bench.marks import put

FACES = (8, 12, 24)


def row(case: Case, studies: int) -> str:
    """A line of the table."""
    shares = [case.coverage(case.interval, faces=f, studies=studies) for f in FACES]
    told = [f"{100 * share:.1f}" for share in shares]
    other, interval = (case.usual[0], case.interval) if case.usual else ("percentile", Percentile())
    if case.interval_name and not case.usual:
        told += ["", ""]
    else:
        usual = case.covers(interval, faces=12, studies=studies, usual=True).mean()
        told += [f"{100 * usual:.1f}", other]
    kind = case.interval_name or type(case.interval).__name__
    return f"| {case.name} | {case.truth:.3f} | {kind} | {' | '.join(told)} | {studies} |"


def known(path: Path | None) -> dict[str, str]:
    """The lines of the table as it stands between the marks, by quantity."""
    text = "" if path is None else path.read_text()
    table = text.partition("<!-- bench:coverage -->")[2].partition("<!-- /bench:coverage -->")[0]
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    return {line.split("|")[1].strip(): line for line in lines[1:]}


def main() -> None:
    """Measure and print the table, a row as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    parser.add_argument("--new", action="store_true", help="those that the file's table lacks")
    parser.add_argument("--into", type=Path, help="also put the table between a file's marks")
    words = parser.parse_args()
    lines = [
        f"| quantity | truth | interval | {' | '.join(f'{f} faces' for f in FACES)} | usual, 12 "
        "| what is usual | studies |",
        "|---|---|---|" + "---|" * (len(FACES) + 3),
    ]
    print("\n".join(lines))
    before = known(words.into)
    for case in CASES:
        if words.only in case.name and not (words.new and case.name in before):
            before[case.name] = row(case, words.studies)
            print(before[case.name], flush=True)
    if words.into is not None:
        kept = [before[case.name] for case in CASES if case.name in before]
        put(words.into, "coverage", "\n".join(lines + kept))


if __name__ == "__main__":
    main()
