"""The explorer's page: one document with style and script inside, and if it is saved, the answers too."""

import html
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from plotly.offline import get_plotlyjs

SCRIPTS = ("data.js", "state.js", "plots.js", "panels.js", "curves.js", "explore.js", "start.js")
POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self'"
)
"""What a browser may load for the page: nothing from another machine."""


def document(names: Sequence[str], saved: Mapping[str, Any] | None = None) -> str:
    """The page for one or two runs.

    names: of the runs. saved: answers by their questions, for a page that is opened from disk; None for
    one that asks the server.
    """
    folder = files("stepscope.analysis.explore") / "page"
    script = "\n".join((folder / name).read_text(encoding="utf-8") for name in SCRIPTS)
    given = json.dumps({"runs": len(names), "saved": saved}, ensure_ascii=False, allow_nan=False)
    library = '<link rel="preload" as="script" href="plotly.js">'
    parts = {
        "policy": POLICY,
        "title": html.escape(f"{' and '.join(names)} in stepscope"),
        "style": (folder / "style.css").read_text(encoding="utf-8"),
        "plotly": library if saved is None else f"<script>{get_plotlyjs()}</script>",
        "given": given.replace("<", "\\u003c"),  # so that no prompt ends the script
        "script": script,
    }  # fmt: skip
    page = (folder / "page.html").read_text(encoding="utf-8")
    before, *pieces = page.split("{{")
    text = [before]
    for piece in pieces:  # one pass, so that what is put in is not searched
        name, _, rest = piece.partition("}}")
        text += [parts[name], rest]
    return "".join(text)
