"""What `verify` found of one claim."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """The result of one check: the claim, whether it holds, and the measured values."""

    claim: str
    holds: bool
    detail: str
