"""The methods that are ranked: each makes a map of scores from what is seen of an organism.

The larger the score of a place, the more the method says that identity enters there. Scores are means over
the targets.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from stepscope.analysis.planted.seen import Map, Seen

Scores = Float[np.ndarray, "group step"]
Method = Callable[[Seen], Scores]


def attention_ratio(seen: Seen) -> Scores:
    """How far the norm of the attention's output departs from that without the adapter, |log(on / off)|."""
    return np.abs(np.log(_ratio(seen, "attention_norm"))).mean(0)


def residual_ratio(seen: Seen) -> Scores:
    """The same of the residual stream after the block, before the adapter's residual is added."""
    return np.abs(np.log(_ratio(seen, "residual_norm"))).mean(0)


def residual_norm(seen: Seen) -> Scores:
    """The norm of the residual stream after the block, before the adapter's residual is added."""
    return _norm(seen, "residual_norm").mean(0)


def contribution(seen: Seen) -> Scores:
    """The norm of what the adapter adds over that of the stream that it is added to."""
    return _norm(seen, "contribution").mean(0)


def zero(seen: Seen) -> Scores:
    """Similarity that is lost when the place's residual is zeros."""
    return _lost(seen, "zero")


def mean(seen: Seen) -> Scores:
    """Similarity that is lost when the place has the mean residual of all people."""
    return _lost(seen, "mean")


def swap(seen: Seen) -> Scores:
    """Similarity that is lost when the place has another person's residual."""
    return _lost(seen, "swap")


def denoise(seen: Seen) -> Scores:
    """Similarity that a run on another person gains when the place has the target's residual."""
    return _gained(seen.map_of("denoise"), seen.other)


def alone(seen: Seen) -> Scores:
    """Similarity that the place's residual gives by itself, with zeros at every other place."""
    return _gained(seen.map_of("alone"), seen.nothing)


def gradient(seen: Seen) -> Scores:
    """Residual times gradient, toward the person, in x0 of the same step."""
    return seen.slopes.mean(0)


METHODS: dict[str, Method] = {
    "attention-norm ratio": attention_ratio,
    "residual-norm ratio": residual_ratio,
    "residual norm": residual_norm,
    "contribution": contribution,
    "gradient x activation": gradient,
    "zero ablation": zero,
    "mean ablation": mean,
    "swap ablation": swap,
    "all but one zeroed": alone,
    "denoising transplant": denoise,
}
"""Every method that is ranked, by the name that tables have."""
NORMS = ("attention-norm ratio", "residual-norm ratio", "residual norm", "contribution")
"""Those that edit nothing and read norms: what a heatmap of norms shows."""
EDITS = (
    "zero ablation",
    "mean ablation",
    "swap ablation",
    "all but one zeroed",
    "denoising transplant",
)
"""Those that edit, and read the final image."""


def _norm(seen: Seen, name: str) -> Map:
    return seen.grown.base.norms[name][[*seen.grown.targets]]


def _ratio(seen: Seen, name: str) -> Map:
    return _norm(seen, name) / seen.grown.bench.without.norms[name]


def _lost(seen: Seen, method: str) -> Scores:
    return -_gained(seen.map_of(method), seen.on)


def _gained(after: Map, before: np.ndarray) -> Scores:
    """An edit that changes nothing gains nothing."""
    return np.nan_to_num(after - before[:, None, None]).mean(0)
