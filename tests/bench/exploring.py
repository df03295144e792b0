"""`python -m tests.bench.exploring`: seconds until the explorer shows a run of many samples."""

import argparse
import tempfile
import time
from pathlib import Path

from stepscope.analysis.explore.source import Source
from stepscope.analysis.explore.variables import about
from stepscope.analysis.explore.view import samples, view
from tests.exploring import many, served


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = many(Path(folder) / "run.zarr", args.samples)
        print(
            "| round | opened | list of samples | first sample | in Chromium, until it is drawn |"
        )
        print("|---|---|---|---|---|")
        for i in range(args.rounds):
            times = [*seconds(path), browser_seconds(path)]
            print(f"| {i + 1} | {' | '.join('–' if t is None else f'{t:.2f} s' for t in times)} |")


def seconds(path: Path) -> list[float]:
    """What the server takes, read by read, for a run that it has not seen."""
    found, start = [], time.perf_counter()
    source = Source(str(path))
    for read in (lambda: about(source), lambda: samples(source), lambda: view(source, 0)):
        read()
        found.append(time.perf_counter() - start)
        start = time.perf_counter()
    return found


def browser_seconds(path: Path) -> float | None:
    """From the address to the chosen cell; None where there is no browser."""
    from tests.browser import chromium

    try:
        with chromium() as browser, served(path) as address:
            page = browser.new_page()
            start = time.perf_counter()
            page.goto(address)
            page.locator("#value0", has_text="attention_norm").wait_for()
            return time.perf_counter() - start
    except BaseException as error:  # pytest's own way of leaving out a test is none of Exception
        if type(error).__name__ != "Skipped":
            raise
        return None


if __name__ == "__main__":
    main()
