"""What `verify` found of one claim."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One claim that was checked: whether it holds, and what was measured."""

    claim: str
    holds: bool
    detail: str
