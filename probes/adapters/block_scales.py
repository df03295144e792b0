"""Scales of an IP-Adapter's blocks, as diffusers' set_ip_adapter_scale takes them."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal

from diffusers import UNet2DConditionModel

from stepscope.hooks.errors import StepscopeError, nearest

Blocks = Literal["all", "style", "layout", "style_and_layout"]
# InstantStyle (Wang et al. 2024, arXiv 2404.02733): SDXL's blocks of style and of layout.
STYLE = {"up": {"block_0": [0.0, 1.0, 0.0]}}
LAYOUT = {"down": {"block_2": [0.0, 1.0]}}
PUBLISHED: dict[str, dict[str, Any]] = {
    "style": STYLE,
    "layout": LAYOUT,
    "style_and_layout": {**STYLE, **LAYOUT},
}


def leaves(scale: Any) -> Iterator[Any]:
    """Every value in a scale of blocks, which should be numbers."""
    if isinstance(scale, Mapping | list | tuple):
        for value in scale.values() if isinstance(scale, Mapping) else scale:
            yield from leaves(value)
    else:
        yield scale


def check_scale(scale: Any, denoiser: Any) -> None:
    """Raise StepscopeError for a scale of blocks that the denoiser lacks, without which diffusers goes on.

    As diffusers' set_ip_adapter_scale takes it: `down`, `mid` and `up`, in each a number or blocks that
    hold attentions, `block_1`, in each a number or one for every attention.
    """
    if not isinstance(scale, Mapping):
        return
    if not isinstance(denoiser, UNet2DConditionModel):
        raise StepscopeError(
            "adapter.scale names blocks of a U-Net, and the backbone has none: a number"
        )
    for part, inside in scale.items():
        _known(part, ("down", "mid", "up"), "adapter.scale")
        if part == "mid" or not isinstance(inside, Mapping):
            continue
        blocks: Any = getattr(denoiser, f"{part}_blocks")
        counts = {f"block_{i}": len(getattr(one, "attentions", ())) for i, one in enumerate(blocks)}
        counts = {name: count for name, count in counts.items() if count}
        for name, values in inside.items():
            _known(name, counts, f"adapter.scale: {part}")
            if isinstance(values, list | tuple) and len(values) != counts[name]:
                raise StepscopeError(
                    f"adapter.scale: {part}.{name} has {counts[name]} attentions, and "
                    f"{len(values)} numbers are named"
                )


def _known(name: Any, known: Collection[str], where: str) -> None:
    if name not in known:
        raise StepscopeError(f"{where} has no {name!r}; {nearest(str(name), known)}")


def times(scale: Any, factor: float) -> Any:
    """A scale with every number times a factor."""
    if isinstance(scale, Mapping):
        return {name: times(value, factor) for name, value in scale.items()}
    if isinstance(scale, list | tuple):
        return [times(value, factor) for value in scale]
    return scale * factor
