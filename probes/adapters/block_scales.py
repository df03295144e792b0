"""Scales of an IP-Adapter's blocks, as diffusers' set_ip_adapter_scale takes them."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

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


def times(scale: Any, factor: float) -> Any:
    """A scale with every number times a factor."""
    if isinstance(scale, Mapping):
        return {name: times(value, factor) for name, value in scale.items()}
    if isinstance(scale, list | tuple):
        return [times(value, factor) for value in scale]
    return scale * factor
