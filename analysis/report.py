"""One self-contained page: each claim beside the paper's, its rule and control, then figures and tables.

Every number of a sentence stands in one of its tables.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stepscope.analysis import page
from stepscope.analysis.claims import claims
from stepscope.analysis.evidence import Evidence
from stepscope.analysis.exhibit import heading
from stepscope.analysis.lookup import setting
from stepscope.analysis.tables import TABLES
from stepscope.analysis.tables.table import Table


@dataclass(frozen=True)
class Item:
    """A figure or a table of the report, or why there is none.

    words: a paragraph from the numbers. image: PNG file. commands: what makes the runs behind it; runs:
    their names in the list of runs.
    """

    name: str
    caption: str
    command: str
    image: Path | None = None
    table: Table | None = None
    missing: str = ""
    words: str = ""
    commands: Sequence[str] = field(default=(), repr=False)
    runs: Sequence[str] = ()


EXPLORE = "Look at some samples step by step: pictures, curves and maps of the blocks"
"""Where the link to the explorer's page leads."""
FIRST = {"table_verdicts": 1, "table_confounders": 0}
"""Tables with which the page begins, and how many of their columns name a row."""
LAST = {"table_numbers": 2}
"""Tables that a reader looks things up in, at the end."""


def write(
    path: Path,
    evidence: Evidence,
    items: Sequence[Item],
    *,
    title: str,
    explorer: str | None = None,
) -> Path:
    """Write the page; it opens from disk, with its pictures inside, and asks the network for nothing.

    Items of FIRST and LAST are made here, whether or not they are among `items`. Links to the files of
    figures are relative to the page. explorer: the name of the explorer's page beside it.
    """
    own = [item for item in items if item.name not in FIRST | LAST]
    sections = [
        *(table_section(name, evidence, keys) for name, keys in FIRST.items()),
        *((item.name, heading(item.caption), item_body(item, path)) for item in own),
        *(table_section(name, evidence, keys) for name, keys in LAST.items()),
        ("intervals", "How many intervals the report holds", page.grid(intervals(evidence))),
        ("runs", "The runs", "".join(run_details(evidence))),
    ]
    parts = [
        page.title(title),
        page.paragraph(provenance_line(evidence), "note"),
        page.grid(summary(evidence), kind="claims"),
        page.paragraph(how_to_read(evidence), "note"),
        page.link(explorer, EXPLORE) if explorer else "",
        page.contents((name, heading) for name, heading, _ in sections),
        *(page.section(*one) for one in sections),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page.document(title, parts))
    return path


def summary(evidence: Evidence) -> Table:
    """A row for each claim: the paper's words, the numbers that decide here, and the verdict."""
    rows = []
    for claim in claims(evidence):
        deciding = [part.sentence for part in claim.parts if part.decides]
        here = "\n".join(line[0].upper() + line[1:] for line in [*deciding, *claim.survives])
        rows.append([claim.title, claim.claimed, here, str(claim.verdict)])
    return Table(("claim", "the paper, of FLUX.1", "here", "verdict"), rows)


def provenance_line(evidence: Evidence) -> str:
    """Models, machines, versions and days of the runs."""
    runs = [run for each in evidence.runs.values() for run in each]

    def every(values: Sequence[str]) -> str:
        return ", ".join(sorted(set(values)))

    versions = [
        " ".join(f"{name} {run.attrs['versions'][name]}" for name in ("torch", "diffusers"))
        for run in runs
        if "versions" in run.attrs
    ]
    told = {
        "Models": every([str(setting(run, "backbone")) for run in runs]),
        "Machine": every([run.attrs["device"] for run in runs if "device" in run.attrs]),
        "Versions": every(versions),
        "Recorded": every([run.attrs["created"][:10] for run in runs if "created" in run.attrs]),
    }
    return ". ".join(f"{word}: {text}" for word, text in told.items() if text) + "."


def how_to_read(evidence: Evidence) -> str:
    """Which models the page is about, and what the numbers in brackets are."""
    models = {str(setting(run, "backbone")) for each in evidence.runs.values() for run in each}
    pocket = (
        "The pocket models are small and were trained on painted portraits only: the page is about them, "
        "not about FLUX.1. "
        if any(name.startswith("pocket") for name in models)
        else ""
    )
    return pocket + (
        f"In brackets: {evidence.level:.0%} intervals over faces, each with all its samples; of seconds, "
        "over pipeline calls; or the reason why there is none. They hold for these prompts and seeds, "
        "except in the column over faces, prompts and seeds. Images without a face are left out "
        "and counted, never imputed."
    )


def table_section(name: str, evidence: Evidence, keys: int) -> tuple[str, str, str]:
    """Name, heading and body of a table that the page always has."""
    exhibit = TABLES[name]
    first, _, rest = exhibit.caption.partition("\n\n")
    body = page.paragraph(first) + page.grid(exhibit.make(evidence), keys=keys)
    return name, heading(first), body + page.fold("how to read it", page.paragraph(rest))


def item_body(item: Item, path: Path) -> str:
    """A figure or table, what it shows, the command that makes it again, and those of its runs."""
    first, _, rest = item.caption.partition("\n\n")
    if item.missing:
        body = page.paragraph(f"Not made: {item.missing}", "gap")
    elif item.image is not None:
        body = page.picture(item.image, first, path)
    else:
        body = page.grid(item.table) if item.table is not None else ""
    body += page.paragraph(item.words) if item.words else ""
    folded = "".join(page.paragraph(text) for text in rest.split("\n\n"))
    parts = [
        f"<figure>{body}<figcaption>{page.paragraph(first)}{page.fold('what it shows', folded)}"
        "</figcaption></figure>"
    ]
    if item.command:
        parts.append(page.fold("make it again", page.code(item.command)))
    if item.runs:
        runs = f"its runs: {', '.join(item.runs)}"
        parts.append(page.fold(runs, page.code("\n".join(item.commands))))
    return "".join(parts)


def intervals(evidence: Evidence) -> Table:
    """How many intervals over faces the report holds, and which of them are pre-specified."""
    counts = evidence.tally.counts()
    rows = [[kind, str(count)] for kind, count in counts.items()]
    total = sum(counts.values())
    rows += [
        ["all, over faces", str(total)],
        ["expected to miss by chance, were all independent", f"{(1 - evidence.level) * total:.0f}"],
    ]
    named = [f"{c.title}: {p.name}" for c in claims(evidence) for p in c.parts if p.decides]
    rows += [["pre-specified", str(len(named))]]
    note = (
        f"Each is a {evidence.level:.0%} interval by itself; none is adjusted for the others. "
        f"Pre-specified: {'; '.join(named)}. All others are exploratory. "
        "Bands drawn as outlines are simultaneous: they hold a whole curve."
    )
    return Table(("kind", "intervals"), rows, note=note)


def run_details(evidence: Evidence) -> list[str]:
    """Of every run what it was recorded on, with which versions, and every weight's hash."""
    unique = {run.attrs.get("path", str(i)): run for i, run in enumerate(
        run for runs in evidence.runs.values() for run in runs)}  # fmt: skip
    found = []
    for name, run in unique.items():
        kept = {k: run.attrs[k] for k in KEPT if k in run.attrs}
        text = json.dumps(kept, indent=1, ensure_ascii=False, default=str)
        head = f"{Path(name).name}: {setting(run, 'backbone')}, {setting(run, 'steps')} steps"
        found.append(page.fold(head, page.code(text)))
    return found


KEPT = (
    "created",
    "device",
    "dtype",
    "versions",
    "configuration",
    "conditioning_encoder",
    "weights",
)
"""Attributes of a run that the page shows."""
