"""Verdicts are computed: a rule is a value with its text, and maps a number to a verdict.

A claim has parts, each a question with a rule, a control, estimates and one of four verdicts. The
pre-specified parts decide the claim; the others are secondary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from stepscope.analysis.number import Entry, Number


class Verdict(StrEnum):
    """What the measured numbers say about a claim or a part of it."""

    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    UNDECIDED = "undecided"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class AtLeast:
    """The whole interval is at or above a bound: superiority at 0, non-inferiority at minus a margin."""

    bound: float

    @property
    def text(self) -> str:
        return f"at least {self.bound:g}"

    def __call__(self, number: Number) -> Verdict:
        return _decided(number.low >= self.bound, number.high < self.bound)


@dataclass(frozen=True)
class AtMost:
    """The whole interval is at or below a bound."""

    bound: float

    @property
    def text(self) -> str:
        return f"at most {self.bound:g}"

    def __call__(self, number: Number) -> Verdict:
        return _decided(number.high <= self.bound, number.low > self.bound)


@dataclass(frozen=True)
class Within:
    """Equivalence: the whole interval is within a margin of 0, which is two one-sided tests (TOST)."""

    margin: float

    @property
    def text(self) -> str:
        return f"within {self.margin:g} of 0 (two one-sided tests)"

    def __call__(self, number: Number) -> Verdict:
        inside = -self.margin <= number.low and number.high <= self.margin
        return _decided(inside, number.low > self.margin or number.high < -self.margin)


Rule = AtLeast | AtMost | Within
"""From a number with its interval to a verdict; its text is printed, and says where the whole interval
must lie."""
APPLIED = (
    "A question is supported where the whole interval of its estimate satisfies the rule, contradicted "
    "where no part of the interval does, and undecided otherwise"
)


def _decided(yes: bool, no: bool) -> Verdict:
    """A comparison with NaN is false, so that without an interval nothing is decided."""
    if yes:
        return Verdict.SUPPORTED
    return Verdict.CONTRADICTED if no else Verdict.UNDECIDED


@dataclass(frozen=True)
class Part:
    """One question about a claim.

    rule: its text. estimates: the named numbers that the rule read, the first with `crossed`, its interval
    over faces, prompts and seeds; secondary: further numbers. control: what the estimate is compared with.
    reason: why the verdict is this one, where the numbers do not show it. decides: pre-specified, so that
    it enters the claim's verdict.
    """

    name: str
    rule: str
    verdict: Verdict
    estimates: Sequence[tuple[str, Entry]] = ()
    control: str = ""
    crossed: Entry = ""
    secondary: Sequence[tuple[str, Entry]] = ()
    reason: str = ""
    decides: bool = False

    @classmethod
    def of(cls, name: str, rule: Rule, what: str, number: Number, **more: object) -> "Part":
        """A part whose rule reads one number; without an interval it is undecided, with the reason.

        more: further fields of the part.
        """
        without = np.isnan([number.low, number.high]).any()
        reason = f"no interval: {number.why}" if without and number.why != "–" else ""
        if np.isnan(number.value):
            reason = reason or "no number: no face was found, or it is not defined"
        # An interval that is undefined over faces is undefined over all factors.
        fields: dict = {"reason": reason} | more | ({"crossed": ""} if without else {})
        return cls(name, rule.text, rule(number), ((what, number),), **fields)

    @classmethod
    def missing(cls, name: str, rule: str, reason: str, *, decides: bool = False) -> "Part":
        """A part that lacks its data, and why."""
        return cls(name, rule, Verdict.NOT_MEASURED, reason=reason, decides=decides)

    @property
    def sentence(self) -> str:
        """The part in words: its numbers as the tables print them, and its verdict."""
        numbers = "; ".join(f"{what} {value}" for what, value in self.estimates)
        question = ": ".join(filter(None, (self.name, numbers)))
        return f"{question} → {self.verdict}" + (f" ({self.reason})" if self.reason else "")


COMBINED = (
    "A claim is supported where every pre-specified question is; otherwise contradicted where one of them "
    "is; otherwise not measured where one of them is; otherwise undecided. Other questions do not count"
)


@dataclass(frozen=True)
class Claim:
    """A claim in the paper's words, and the parts that test it.

    readings: the parts are different readings of the claim, which may hold for some of them only.
    """

    title: str
    claimed: str
    parts: Sequence[Part]
    readings: bool = False

    @property
    def verdict(self) -> Verdict:
        """By COMBINED."""
        deciding = [part.verdict for part in self.parts if part.decides]
        if not deciding:
            return Verdict.NOT_MEASURED
        if all(one == Verdict.SUPPORTED for one in deciding):
            return Verdict.SUPPORTED
        for one in (Verdict.CONTRADICTED, Verdict.NOT_MEASURED):
            if one in deciding:
                return one
        return Verdict.UNDECIDED

    @property
    def survives(self) -> list[str]:
        """The readings for which the claim is supported, and those for which it is contradicted, in words.

        Empty for a claim without readings.
        """
        if not self.readings:
            return []
        names = {
            words: [part.name for part in self.parts if part.verdict == verdict]
            for words, verdict in SURVIVES.items()
        }
        return [f"{words}: {', '.join(parts) or 'none'}" for words, parts in names.items()]


SURVIVES = {
    "Supported when read as": Verdict.SUPPORTED,
    "Contradicted when read as": Verdict.CONTRADICTED,
}
