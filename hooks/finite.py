"""Which samples of a call hold numbers that are not finite, and where the first of them appeared."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from stepscope.hooks.assemble import NORMS, Axes
from stepscope.hooks.parts import Parts
from stepscope.hooks.sites import QUANTITIES, Block

SHOWN = 3  # samples that one line names


def not_finite(
    made: Mapping[str, np.ndarray], parts: Parts, axes: Axes, drawn: np.ndarray | None
) -> np.ndarray:
    """The coordinate `not_finite` (sample,): texts, empty where every number is finite.

    made: the call's variables. drawn: (sample,) whether the numbers that the image was made of are finite,
    None without an image.
    """
    found: list[list[tuple[tuple[int, ...], str]]] = [[] for _ in range(axes.batch)]
    for stage, name, blocks, bad in _along_steps(made, parts, axes):
        for sample in np.flatnonzero(bad.any((1, 2))):
            step = int(bad[sample].any(1).argmax())
            block = int(bad[sample, step].argmax())
            where = f" of {blocks[block].name}" if blocks else ""
            found[sample].append(((step, stage, block), f"{name}{where} at step {step}"))
    final = np.isfinite(made["final_latents"]).all((1, 2, 3))
    for name, finite in (("final_latents", final), ("image", drawn)):
        for sample in np.flatnonzero(np.logical_not(finite)) if finite is not None else ():
            found[sample].append(((axes.steps,), name))
    # stable: attention comes before the residual stream of its block
    texts = [", ".join(text for _, text in sorted(one, key=lambda e: e[0])) for one in found]
    return np.array(texts, object)


def told_of(texts: Sequence[str]) -> str:
    """What is said of a call whose samples have these texts: which samples, and where each began."""
    bad = [f"batch place {i}: {text.split(', ')[0]}" for i, text in enumerate(texts) if text]
    more = f" and {len(bad) - SHOWN} more" if bad[SHOWN:] else ""
    return (
        f"{len(bad)} of {len(texts)} samples of this call hold numbers that are not finite, first in "
        f"{'; '.join(bad[:SHOWN])}{more}. They are stored as they are, and the coordinate not_finite says "
        "where. A wider dtype is the usual cure (backbone.dtype=bfloat16 or float32), of the VAE where the "
        "image alone is not finite"
    )


def _along_steps(
    made: Mapping[str, np.ndarray], parts: Parts, axes: Axes
) -> Iterator[tuple[int, str, Sequence[Block], np.ndarray]]:
    """Variables by their part of a step, and where each is not finite, (sample, step, block).

    Without blocks, that axis has one place. What was not run is NaN too, and not told here.
    """
    blocks = parts.denoiser.blocks
    ran = np.zeros((axes.steps, len(axes.branches), len(blocks)), bool)
    for place, branch, _ in axes.placed():
        seen = parts.denoiser.passes.get(place)
        skipped = () if seen is None else seen.tokens.skipped
        ran[place[0], branch] = [block.name not in skipped for block in blocks]
    stepped = np.asarray(ran.any((1, 2)))[:, None]
    yield 0, "latents", (), _bad(made["latents"]) & stepped
    if parts.adapter is not None:
        beside = np.zeros(axes.steps, bool)
        beside[[step for step, _ in parts.adapter.passes if step < axes.steps]] = True
        inside, name = parts.adapter.blocks, "adapter_attention_norm"
        yield 1, name, inside, _bad_norm(made[name], inside, "attention", axes) & beside[:, None]
    for quantity in QUANTITIES:
        name = NORMS[quantity]
        bad = _bad_norm(made[name], blocks, quantity, axes) & ran
        yield 2, name, blocks, np.asarray(bad.any(2))
    if "velocity" in made:
        bad = _bad(made["velocity"]) & np.asarray(ran.any(2))[..., None]
        yield 3, "velocity", (), np.asarray(bad.any(2))
    yield 4, "x0", (), _bad(made["x0"]) & stepped


def _bad(values: np.ndarray) -> np.ndarray:
    """Whether something of (..., channel, y, x) is not finite, (..., 1)."""
    return np.logical_not(np.isfinite(values).all((-3, -2, -1)))[..., None]


def _bad_norm(values: np.ndarray, blocks: Sequence[Block], quantity: str, axes: Axes) -> np.ndarray:
    """Whether a norm (..., block, stream) is not finite, (..., block).

    NaN may also say that there is no such stream: it tells something only of the image's tokens, which
    are there in every pass, where a site reads them.
    """
    read = [any("image" in s.streams and s.quantity == quantity for s in b.sites) for b in blocks]
    lost = np.isnan(values[..., axes.streams.index("image")]) & np.array(read, bool)
    return np.isinf(values).any(-1) | lost
