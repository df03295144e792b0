"""Verdicts are computed: a rule is a value with its text, and what it says follows from a number.

A claim is asked in parts. Each part has a rule, what it is held against, what was seen, and one of
four verdicts; the parts that were named beforehand decide, and the others stand beside.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from analysis.number import Entry, Number


class Verdict(StrEnum):
    """What the measured numbers say of a claim, or of a part of it."""

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
"""From a number with its interval to a verdict; its text is printed beside it, and says what the whole
interval has to be."""
APPLIED = (
    "A question is supported where the whole interval of what was seen is as its rule says, contradicted "
    "where none of it is, and else undecided"
)


def _decided(yes: bool, no: bool) -> Verdict:
    """NaN compares as false: without an interval nothing is decided."""
    if yes:
        return Verdict.SUPPORTED
    return Verdict.CONTRADICTED if no else Verdict.UNDECIDED


@dataclass(frozen=True)
class Part:
    """One question to a claim.

    rule: the text of what decides. against: the control. seen: named numbers that the rule read;
    beside: more of them. wider: the first number's interval with prompts and seeds drawn too.
    reason: why the verdict is this one, where the numbers do not show it. decides: named beforehand.
    """

    name: str
    rule: str
    verdict: Verdict
    seen: Sequence[tuple[str, Entry]] = ()
    against: str = ""
    wider: Entry = ""
    beside: Sequence[tuple[str, Entry]] = ()
    reason: str = ""
    decides: bool = False

    @classmethod
    def of(cls, name: str, rule: Rule, what: str, number: Number, **more: object) -> "Part":
        """A part whose rule reads one number; without an interval it is undecided, and says why."""
        without = np.isnan([number.low, number.high]).any()
        reason = f"no interval: {number.why}" if without and number.why != "–" else ""
        if np.isnan(number.value):
            reason = reason or "no number: no face was found, or it is not defined"
        # What is not defined over faces is not defined over more.
        fields: dict = {"reason": reason} | more | ({"wider": ""} if without else {})
        return cls(name, rule.text, rule(number), ((what, number),), **fields)

    @classmethod
    def missing(cls, name: str, rule: str, reason: str, *, decides: bool = False) -> "Part":
        """A part that could not be asked, and why."""
        return cls(name, rule, Verdict.NOT_MEASURED, reason=reason, decides=decides)

    @property
    def sentence(self) -> str:
        """The part in words: its numbers, as the tables print them, and what they say."""
        numbers = "; ".join(f"{what} {value}" for what, value in self.seen)
        told = ": ".join(filter(None, (self.name, numbers)))
        return f"{told} → {self.verdict}" + (f" ({self.reason})" if self.reason else "")


COMBINED = (
    "A claim is supported where each question that was named beforehand is; contradicted where one of "
    "them is; not measured where one of them is not; else undecided. The other questions do not vote"
)


@dataclass(frozen=True)
class Claim:
    """What was claimed, in the paper's words, and the parts in which it was asked.

    readings: the parts read one thing in several ways, so that the claim may survive in some.
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
        """Of a claim with readings: the names of those in which it survives, and in which it does not."""
        if not self.readings:
            return []
        names = {
            words: [part.name for part in self.parts if part.verdict == verdict]
            for words, verdict in SURVIVES.items()
        }
        return [f"{words}: {', '.join(each) or 'none'}" for words, each in names.items()]


SURVIVES = {
    "It survives read as": Verdict.SUPPORTED,
    "It does not survive read as": Verdict.CONTRADICTED,
}
"""Of a claim whose parts are readings of one thing."""
