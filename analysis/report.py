"""One self-contained page: verdicts with their rules and controls, then every figure and table.

Every number of a sentence stands in one of the tables, which come first.
"""

import base64
import html
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from analysis.claims import claims
from analysis.evidence import Evidence, setting
from analysis.tables import TABLES
from analysis.tables.table import Table
from analysis.verdict import Claim

STYLE = """
body{max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222;line-height:1.5;
 font-family:system-ui,"DejaVu Sans",sans-serif}
h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2.5rem;border-top:1px solid #ccc;padding-top:1rem}
h3{font-size:1rem;margin-bottom:.2rem}img{max-width:100%;background:#fff}
figure{margin:1rem 0}figcaption,.note{font-size:.85rem;color:#444}
code,pre{font-family:"DejaVu Sans Mono",monospace;font-size:.75rem}
pre{background:#f5f5f5;padding:.5rem;overflow-x:auto;white-space:pre-wrap}
table{border-collapse:collapse;font-size:.75rem;display:block;overflow-x:auto}
th,td{border-bottom:1px solid #ddd;padding:.25rem .5rem;text-align:left;vertical-align:top}
.claim{border-left:4px solid #0072B2;padding-left:1rem;margin:1rem 0}.claim p{margin:.3rem 0}
.gap{border:1px dotted #777;padding:1rem;color:#555;font-style:italic}
"""


@dataclass(frozen=True)
class Item:
    """A figure or a table of the report, or why there is none.

    image: PNG file. commands: what makes the runs behind it; runs: their names in the list of runs.
    """

    name: str
    caption: str
    command: str
    image: Path | None = None
    table: Table | None = None
    missing: str = ""
    commands: Sequence[str] = field(default=(), repr=False)
    runs: Sequence[str] = ()


def write(path: Path, evidence: Evidence, items: Sequence[Item], *, title: str) -> Path:
    """Write the page; it opens from disk, with its pictures inside, and asks the network for nothing.

    Items of FIRST are made here, whether or not they are among `items`.
    """
    first = [table_item(name, evidence) for name in FIRST]
    rest = [item for item in items if item.name not in FIRST]
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f'<p class="note">{html.escape(about(evidence))}</p>',
        *(verdict_html(claim) for claim in claims(evidence)),
        *(item_html(item) for item in first),
        "<h2>Verdicts, question by question</h2>",
        *(claim_html(claim) for claim in claims(evidence)),
        *(item_html(item) for item in rest),
        "<h2>Intervals in this report</h2>",
        table_html(intervals(evidence)),
        "<h2>Runs</h2>",
        *runs_html(evidence),
    ]
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>"
        + "\n".join(parts)
        + "</body></html>\n"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page)
    return path


def about(evidence: Evidence) -> str:
    """Who was asked, and what the numbers in brackets are."""
    models = sorted(
        {str(setting(run, "backbone")) for runs in evidence.runs.values() for run in runs}
    )
    pocket = any(name.startswith("pocket") for name in models)
    return (
        f"Models: {', '.join(models)}. "
        + ("These are pocket models, small and trained on drawn portraits: what they say is said of "
           "them, and not of FLUX.1. " if pocket else "")
        + f"In brackets: {evidence.level:.0%} intervals over faces, each face drawn or left out whole; of "
        "seconds over pipeline calls; the reason where there is none. Prompts and seeds are as given, "
        "but in the column that says they are drawn too. Faces that were not found are left out and "
        "counted, never imputed."
    )  # fmt: skip


FIRST = {
    "table_verdicts": "What would change our mind",
    "table_confounders": "Confounders, and how each is held",
    "table_numbers": "Numbers behind the verdicts",
}
"""Tables with which the page begins, and their headings."""


def table_item(name: str, evidence: Evidence) -> Item:
    """One of FIRST."""
    exhibit = TABLES[name]
    return Item(FIRST[name], exhibit.caption, "", table=exhibit.make(evidence))


def verdict_html(claim: Claim) -> str:
    """A claim and its verdict, which the table below it accounts for."""
    return (
        f'<div class="claim"><p><b>{html.escape(claim.title)}:</b> {html.escape(claim.sentence)}</p>'
        f'<p class="note">The paper: {html.escape(claim.claimed)}.</p></div>'
    )


def claim_html(claim: Claim) -> str:
    """Every part of a claim in words."""
    told = "".join(f"<p>{html.escape(part.sentence)}.</p>" for part in claim.parts)
    return f'<div class="claim"><p><b>{html.escape(claim.title)}</b></p>{told}</div>'


def intervals(evidence: Evidence) -> Table:
    """How many intervals over faces the report holds, and which of them were named beforehand."""
    counts = evidence.tally.counts()
    rows = [[kind, str(count)] for kind, count in counts.items()]
    total = sum(counts.values())
    rows += [
        ["all, over faces", str(total)],
        ["expected to miss by chance, were all independent", f"{(1 - evidence.level) * total:.0f}"],
    ]
    named = [f"{c.title}: {p.name}" for c in claims(evidence) for p in c.parts if p.decides]
    rows += [["named beforehand", str(len(named))]]
    note = (
        f"Each is a {evidence.level:.0%} interval of its own, none is adjusted for the others. Named "
        f"beforehand, and so read without a search: {'; '.join(named)}. All others are to look at. Bands "
        "drawn as outlines hold a whole curve at once."
    )
    return Table(("kind", "intervals"), rows, note=note)


def item_html(item: Item) -> str:
    """A figure or table with its caption, its command and the commands of its runs."""
    if item.missing:
        body = f'<p class="gap">Not made: {html.escape(item.missing)}</p>'
    elif item.image is not None:
        data = base64.b64encode(item.image.read_bytes()).decode()
        body = f'<img alt="{html.escape(item.name)}" src="data:image/png;base64,{data}">'
    else:
        body = table_html(item.table) if item.table is not None else ""
    runs = "\n".join(item.commands)
    return (
        f"<h2>{html.escape(item.name)}</h2><figure>{body}"
        f"<figcaption>{html.escape(item.caption)}</figcaption></figure>"
        + (f"<pre>{html.escape(item.command)}</pre>" if item.command else "")
        + (
            f"<details><summary class=note>its runs: {html.escape(', '.join(item.runs))}</summary>"
            f"<pre>{html.escape(runs)}</pre></details>"
            if item.runs
            else ""
        )
    )


def table_html(table: Table) -> str:
    """The table and its note."""
    head = "".join(f"<th>{html.escape(column)}</th>" for column in table.columns)
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(entry))}</td>" for entry in row) + "</tr>"
        for row in table.rows
    )
    note = f'<p class="note">{html.escape(table.note)}</p>' if table.note else ""
    return f"<table><tr>{head}</tr>{rows}</table>{note}"


def runs_html(evidence: Evidence) -> list[str]:
    """Provenance of every run: what it recorded on, with which versions, and every weight's hash."""
    unique = {run.attrs.get("path", str(i)): run for i, run in enumerate(
        run for runs in evidence.runs.values() for run in runs)}  # fmt: skip
    found = []
    for name, run in unique.items():
        kept = {k: run.attrs[k] for k in KEPT if k in run.attrs}
        text = json.dumps(kept, indent=1, ensure_ascii=False, default=str)
        head = f"{Path(name).name}: {setting(run, 'backbone')}, {setting(run, 'steps')} steps"
        found.append(
            f"<details><summary class=note>{html.escape(head)}</summary>"
            f"<pre>{html.escape(text)}</pre></details>"
        )
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
