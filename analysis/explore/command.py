"""The command line of the explorer: a run, or two side by side, live or as a page of its own."""

import argparse
import re
import shlex
import sys
import webbrowser
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

EXAMPLES = """\
  stepscope explore run.zarr                      opens the browser; Ctrl-C ends it
  stepscope explore dev.zarr schnell.zarr         two runs side by side
  stepscope explore run.zarr --save page.html     one page to send, opened from disk

From another machine: stepscope explore run.zarr --no-browser --port 8421 there, and here
ssh -L 8421:localhost:8421 THERE, then http://localhost:8421/ in the browser.
"""


def parser(program: str) -> argparse.ArgumentParser:
    """The words that the command takes."""
    made = argparse.ArgumentParser(
        program,
        description="Look at a run in the browser, sample by sample and step by step.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("runs", nargs="+", metavar="RUN", help="a run, or two to compare")
    made.add_argument("--port", type=int, help="of 127.0.0.1; else 8421, or any that is free")
    made.add_argument("--no-browser", action="store_true", help="print the address, open nothing")
    made.add_argument("--save", type=Path, metavar="PAGE.html", help="write a page, serve nothing")
    made.add_argument("--samples", metavar="0,7,9", help="with --save: these samples, not all")
    return made


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; returns the process's exit status: 0, or 2 for mistakes that the user can fix.

    words: those of the process if None.
    """
    own = sys.argv[0].startswith("stepscope ")
    program = sys.argv[0] if own else "python -m analysis.explore"
    typed = list(sys.argv[1:] if words is None else words)
    for word in typed:
        meant = "" if Path(word).exists() else as_option(word)
        if meant:
            print(f"{word!r} is no run: {program} {meant}", file=sys.stderr)
            return 2
    given = parser(program).parse_args(typed)
    # here, so that -h answers at once
    from stepscope.analysis.explore.save import save
    from stepscope.analysis.explore.serve import serve, start
    from stepscope.analysis.explore.source import ExploreError, Source
    from stepscope.hooks.errors import StepscopeError

    try:
        if len(given.runs) > 2:
            raise ExploreError(f"{len(given.runs)} runs: one or two can be shown, {program} A B")
        sources = [Source(text) for text in given.runs]
        if given.save is not None:
            chosen = None if given.samples is None else [numbers(given.samples)] * len(sources)
            print(save(sources, given.save.expanduser(), chosen))
            return 0
        if given.samples is not None:
            raise ExploreError("--samples is of --save; the live page has all samples")
        serve(start(sources, given.port), None if given.no_browser else webbrowser.open, print)
    except (StepscopeError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def as_option(word: str) -> str:
    """What to type for a word KEY=VALUE, as the other commands take them; empty for another word."""
    match = re.fullmatch(r"([A-Za-z_-]+)=(.*)", word)
    if match is None or word.startswith("-"):
        return ""
    key, value = match[1].replace("_", "-"), match[2].strip("[]")
    if key == "runs":
        return shlex.join(part.strip() for part in value.split(","))
    close = get_close_matches(key, ("port", "save", "samples", "no-browser"), 1)
    if not close:
        return "-h lists its options"
    return f"RUN --{close[0]}" + ("" if close[0] == "no-browser" else f" {shlex.quote(value)}")


def numbers(text: str) -> list[int]:
    """Whole numbers between commas. Raises ExploreError for others."""
    from stepscope.analysis.explore.source import ExploreError

    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise ExploreError(f"--samples {text}: numbers with commas, --samples 0,7,9") from None
