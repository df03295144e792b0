"""A table of numbers with their intervals, written as CSV, Markdown and LaTeX."""

import csv
import io
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stepscope.analysis.number import Entry, Number


@dataclass(frozen=True)
class Table:
    """Columns and rows; `note` is what a reader has to know beneath it."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Entry]]
    note: str = ""

    def csv(self) -> str:
        """Numbers unrounded, with their bounds in columns of their own."""
        wide = [
            any(isinstance(row[i], Number) for row in self.rows) for i in range(len(self.columns))
        ]
        heads = [
            name for column, w in zip(self.columns, wide, strict=True)
            for name in ((column, f"{column} low", f"{column} high") if w else (column,))
        ]  # fmt: skip
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(heads)
        for row in self.rows:
            cells: list[str] = []
            for entry, w in zip(row, wide, strict=True):
                cells += _values(entry) if w else [str(entry)]
            writer.writerow(cells)
        return out.getvalue()

    def markdown(self) -> str:
        """A pipe table and its note."""
        lines = [[_piped(column) for column in self.columns], ["---"] * len(self.columns)]
        lines += [[_piped(str(entry)) for entry in row] for row in self.rows]
        body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        return f"{body}\n" + (f"\n{self.note}\n" if self.note else "")

    def latex(self) -> str:
        """A booktabs tabular for a table environment; comments say what it needs, and its note."""
        lines = [" & ".join(map(_escaped, self.columns)) + r" \\", r"\midrule"]
        lines += [" & ".join(_escaped(str(entry)) for entry in row) + r" \\" for row in self.rows]
        align = "l" + "r" * (len(self.columns) - 1)
        body = "\n".join([rf"\begin{{tabular}}{{{align}}}", r"\toprule", *lines, r"\bottomrule"])
        told = "".join(f"% {line}\n" for line in (NEEDS, " ".join(self.note.split())) if line)
        return f"{told}{body}\n\\end{{tabular}}\n"

    def save(self, folder: Path, name: str) -> list[Path]:
        """Write all three; returns the paths."""
        folder.mkdir(parents=True, exist_ok=True)
        texts = {"csv": self.csv(), "md": self.markdown(), "tex": self.latex()}
        for suffix, text in texts.items():
            (folder / f"{name}.{suffix}").write_text(text)
        return [folder / f"{name}.{suffix}" for suffix in texts]


def _values(entry: Entry) -> list[str]:
    if isinstance(entry, str):
        return [entry, "", ""]
    return ["" if np.isnan(v) else f"{v:.6g}" for v in (entry.value, entry.low, entry.high)]


LATEX = {
    **{sign: "\\" + sign for sign in "&%#_${}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    "–": "--",
    "…": r"\ldots{}",
    "−": "$-$",
    **{
        sign: f"$\\{word}$"
        for sign, word in (
            ("×", "times"), ("≤", "leq"), ("≥", "geq"), ("≈", "approx"), ("≠", "neq"),
            ("∞", "infty"), ("√", "surd"), ("→", "rightarrow"), ("←", "leftarrow"),
            ("↔", "leftrightarrow"), ("Δ", "Delta"), ("∆", "Delta"), ("α", "alpha"),
            ("β", "beta"), ("γ", "gamma"), ("λ", "lambda"), ("μ", "mu"), ("σ", "sigma"),
            ("τ", "tau"),
        )
    },
    "\u200b": "",
    "\n": " ",
}  # fmt: skip
NEEDS = (
    r"Needs \usepackage{booktabs} and, for letters such as «ð», \usepackage[T1]{fontenc}; "
    "for other scripts than Latin XeLaTeX or LuaLaTeX. As wide as a landscape page (9 to 10 in at 8 pt): "
    r"on a portrait one put it into \resizebox{\textwidth}{!}{...} of graphicx."
)
MINUS = re.compile(r"(?<![\w.-])-(?=\d)")
"""Before a number: the sign, not the hyphen of `schnell-4`."""


def _escaped(text: str) -> str:
    """As LaTeX text; a cell that begins with a bracket is no argument of the line break before it."""
    signed = MINUS.sub("−", unicodedata.normalize("NFC", text))
    found = "".join(LATEX.get(sign, sign) for sign in signed)
    return "{}" + found if found.startswith(("[", "*")) else found


def _piped(text: str) -> str:
    """As a cell of a pipe table."""
    return " ".join(text.replace("|", r"\|").split())
