"""Pieces of the report's page: text is escaped here, and nothing asks the network for anything."""

import base64
import html
from collections.abc import Iterable, Sequence
from pathlib import Path

from stepscope.analysis.tables.table import Table

STYLE = """
:root{color-scheme:light dark;--ink:#222;--quiet:#555;--line:#d5d5d5;--paper:#fff;--code:#f4f4f4;
 --mark:#0072B2}
@media (prefers-color-scheme:dark){:root{--ink:#e6e6e6;--quiet:#aaa;--line:#444;--paper:#16181b;
 --code:#22252a;--mark:#56B4E9}}
body{max-width:64rem;margin:2rem auto;padding:0 1rem;line-height:1.5;
 color:var(--ink);background:var(--paper);font-family:system-ui,"DejaVu Sans",sans-serif}
h1{font-size:1.6rem;margin-bottom:.3rem}
h2{font-size:1.15rem;margin-top:2.5rem;border-top:1px solid var(--line);padding-top:1rem}
a{color:var(--mark)}img{max-width:100%;background:#fff}figure{margin:1rem 0}
.note,figcaption,details{font-size:.85rem;color:var(--quiet)}
code,pre{font-family:"DejaVu Sans Mono",monospace;font-size:.75rem}
pre{background:var(--code);padding:.5rem;overflow-x:auto;white-space:pre-wrap}
table{border-collapse:collapse;font-size:.78rem;display:block;overflow-x:auto}
th,td{border-bottom:1px solid var(--line);padding:.3rem .5rem;text-align:left;vertical-align:top}
th{position:sticky;top:0;background:var(--paper)}td.again{border-bottom:0}
table.claims{font-size:.9rem}table.claims td:first-child{font-weight:600}
.supported,.contradicted,.undecided,.missing{font-weight:600;white-space:nowrap}
.supported::before{content:"● "}.contradicted::before{content:"○ "}.undecided::before{content:"◐ "}
.supported::before{color:#009E73}.contradicted::before{color:#D55E00}.undecided::before{color:#E69F00}
nav ul{columns:2;column-gap:2.5rem;padding-left:1.2rem}
@media (max-width:40rem){nav ul{columns:1}table.claims thead{display:none}
 table.claims td{display:block;border:0;padding:.15rem 0}table.claims tr{display:block;padding:.6rem 0;
 border-bottom:1px solid var(--line)}}
.gap{border:1px dotted var(--quiet);padding:1rem;color:var(--quiet);font-style:italic}
"""


def document(title: str, parts: Sequence[str]) -> str:
    """The whole page."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def title(text: str) -> str:
    """The page's heading."""
    return f"<h1>{html.escape(text)}</h1>"


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph; kind is its class."""
    return f"<p{f' class={kind}' if kind else ''}>{html.escape(text)}</p>"


def link(address: str, text: str) -> str:
    """A paragraph that leads to another page."""
    return f'<p><a href="{html.escape(address)}">{html.escape(text)}</a></p>'


def section(name: str, heading: str, *parts: str) -> str:
    """A section that `contents` can lead to by its name."""
    return f'<section id="{name}"><h2>{html.escape(heading)}</h2>' + "".join(parts) + "</section>"


def contents(entries: Iterable[tuple[str, str]]) -> str:
    """Links to sections, by name and heading."""
    items = "".join(
        f'<li><a href="#{name}">{html.escape(heading)}</a></li>' for name, heading in entries
    )
    return f'<nav aria-label="Contents"><ul>{items}</ul></nav>'


def fold(summary: str, body: str) -> str:
    """What opens with a click; body is of this page's pieces."""
    return f"<details><summary>{html.escape(summary)}</summary>{body}</details>"


def code(text: str) -> str:
    """Commands or JSON as they are."""
    return f"<pre>{html.escape(text)}</pre>"


def picture(file: Path, words: str, page: Path) -> str:
    """A PNG within the page, a link to it, and one to the PDF beside it."""
    data = base64.b64encode(file.read_bytes()).decode()
    place = file.relative_to(page.parent).as_posix()
    vector = Path(place).with_suffix(".pdf").as_posix()
    return (
        f'<img alt="{html.escape(words)}" src="data:image/png;base64,{data}">'
        f'<p class=note><a href="{place}">PNG</a> · <a href="{vector}">PDF</a></p>'
    )


def grid(table: Table, *, keys: int = 0, kind: str = "") -> str:
    """A table and its note.

    keys: how many of the first columns name the row; what they repeat of the row above is not shown.
    """
    head = "".join(f"<th scope=col>{html.escape(column)}</th>" for column in table.columns)
    rows, above = [], [""] * keys
    for row in table.rows:
        words = [str(entry) for entry in row]
        same = next((i for i in range(keys) if words[i] != above[i]), keys)
        cells = "".join(
            f"<td>{'' if i < same else _entry(word)}</td>" for i, word in enumerate(words)
        )
        rows.append(f"<tr>{cells}</tr>")
        above = words[:keys]
    note = paragraph(table.note, "note") if table.note else ""
    body = f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
    return f"<table{f' class={kind}' if kind else ''}>{body}</table>{note}"


VERDICTS = ("supported", "contradicted", "undecided", "not measured")


def _entry(text: str) -> str:
    """Lines as they are; a verdict has its mark before it, the reason behind it."""
    word = next((v for v in VERDICTS if text == v or text.startswith(f"{v}: ")), None)
    if word is None:
        return "<br>".join(map(html.escape, text.split("\n")))
    name = "missing" if word == "not measured" else word
    return f"<span class={name}>{word}</span>{html.escape(text.removeprefix(word))}"
