"""An organism as a value: the places of an adapter that carry identity, and what the other places hold."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool

from stepscope.hooks.errors import StepscopeError


class Place(NamedTuple):
    """A cell of the map: a group of neighbouring blocks, and a step, each from 0."""

    group: int
    step: int


@dataclass(frozen=True)
class Organism:
    """Where identity was planted in a pipeline with an adapter; every other place holds zeros or a decoy.

    parts: the places that carry the person's own residual, times `scale`. Of several parts each is enough
    by itself: they are redundant. decoys: places that hold no identity of the person. decoy: what they
    hold, another person's residual (`other`) or a random direction (`random`); empty without decoys.
    louder: the norm of each decoy, in units of the largest planted residual's. seed: of random directions.
    """

    name: str
    kind: str
    parts: tuple[tuple[Place, ...], ...]
    scale: float
    decoys: tuple[Place, ...] = ()
    decoy: str = ""
    louder: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.identity:
            raise StepscopeError(f"{self.name} plants no identity: name at least one place")
        if both := self.identity & {*self.decoys}:
            raise StepscopeError(f"{self.name}: {sorted(both)[0]} holds identity and a decoy")
        if self.decoy not in (("other", "random") if self.decoys else ("",)):
            raise StepscopeError(f"{self.name}: decoy={self.decoy!r}; known: other, random")

    @property
    def identity(self) -> frozenset[Place]:
        """The places that carry identity."""
        return frozenset(place for part in self.parts for place in part)

    @property
    def filled(self) -> list[Place]:
        """The places that hold anything, in order: an edit of any other changes nothing."""
        return sorted(self.identity | {*self.decoys})

    def truth(self, groups: int, steps: int) -> Bool[np.ndarray, "group step"]:
        """Where identity was planted."""
        found = np.zeros((groups, steps), bool)
        for place in self.identity:
            found[place] = True
        return found

    def told(self) -> dict[str, Any]:
        """JSON values that say what the organism is."""
        return {
            **vars(self),
            "parts": [[list(place) for place in part] for part in self.parts],
            "decoys": [list(place) for place in self.decoys],
        }

    @classmethod
    def from_told(cls, told: Mapping[str, Any]) -> "Organism":
        """The organism that `told` was said of."""
        parts = tuple(tuple(Place(*place) for place in part) for part in told["parts"])
        decoys = tuple(Place(*place) for place in told["decoys"])
        return cls(**{**told, "parts": parts, "decoys": decoys})


Draw = Callable[[np.random.Generator, int, int], dict[str, Any]]
"""From a generator and the numbers of groups and of steps to an organism's fields."""


def organisms(seed: int, count: int, groups: int, steps: int) -> list[Organism]:
    """`count` organisms of the kinds in `KINDS`, in turn; the same ones for the same arguments.

    Identity is planted in the first half of the groups, and not in the last quarter of the steps: what
    an adapter adds at the end of the network, or at the end of the run, changes no face.
    Raises StepscopeError for a map that is too small to plant in.
    """
    if groups < 4 or steps < 4:
        raise StepscopeError(f"{groups} groups of blocks and {steps} steps: 4 of each are needed")
    made = []
    for i in range(count):
        kind = list(KINDS)[i % len(KINDS)]
        random = np.random.default_rng([seed, i])
        fields = KINDS[kind](random, groups, steps)
        scale = float(random.choice((1.0, 1.25, 1.5)))
        number = 1 + i // len(KINDS)
        chosen = {"scale": scale, "seed": seed + i, **fields}
        made.append(Organism(f"{kind}_{number:02d}", kind, **chosen))
    return made


def _block(groups: Sequence[int], steps: Sequence[int]) -> tuple[Place, ...]:
    return tuple(Place(int(g), int(k)) for g, k in product(groups, steps))


def _groups(random: np.random.Generator, groups: int) -> list[int]:
    """Two or three neighbours, the last of the first half."""
    count = int(random.integers(2, 1 + min(3, groups // 2)))
    return list(range(groups // 2 - count, groups // 2))


def _few(random: np.random.Generator, groups: int, steps: int) -> dict[str, Any]:
    """Some places of the first half, which need not be neighbours."""
    every = _block(range(groups // 2), range(steps // 2))
    chosen = random.choice(len(every), int(random.integers(3, 5)), replace=False)
    return {"parts": (tuple(every[i] for i in sorted(chosen)),)}


def _early(random: np.random.Generator, groups: int, steps: int) -> dict[str, Any]:
    """The first steps alone."""
    return {"parts": (_block(_groups(random, groups), range(steps // 4)),)}


def _late(random: np.random.Generator, groups: int, steps: int) -> dict[str, Any]:
    """Nothing in the first steps."""
    return {"parts": (_block(_groups(random, groups), range(steps // 4, 3 * steps // 4)),)}


def _redundant(random: np.random.Generator, groups: int, steps: int) -> dict[str, Any]:
    """An early part and a late one, each of which is enough."""
    (first,) = _early(random, groups, steps)["parts"]
    late = _block(range(groups // 2), range(steps // 4, 3 * steps // 4))
    return {"parts": (first, late)}


def _decoy(what: str) -> Draw:
    """Half of the places of the first half with identity; the others, and one elsewhere, as loud without.

    Which half holds the identity is drawn, so that their place alone does not tell them apart.
    """

    def draw(random: np.random.Generator, groups: int, steps: int) -> dict[str, Any]:
        near = _block(range(groups // 2), range(steps // 2))
        far = [one for one in _block(range(groups), range(steps)) if one not in near]
        count = min(3, len(near) // 2)
        drawn = [near[i] for i in random.permutation(len(near))[: 2 * count]]
        decoys = sorted([*drawn[count:], far[random.integers(len(far))]])
        part = tuple(sorted(drawn[:count]))
        return {"parts": (part,), "decoys": tuple(decoys), "decoy": what, "scale": 1.5}

    return draw


KINDS: dict[str, Draw] = {
    "few": _few,
    "early": _early,
    "late": _late,
    "redundant": _redundant,
    "decoy_other": _decoy("other"),
    "decoy_random": _decoy("random"),
}
"""Kinds of organisms and what draws their places."""
