"""The shape of a run: every variable and coordinate that will be stored, with its size in bytes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np

from stepscope.hooks.capture import Capture
from stepscope.hooks.injections.injection import Injection
from stepscope.hooks.injections.residuals import places_between
from stepscope.hooks.sites import Block
from stepscope.hooks.vocabulary import FOUND_COORDINATES, STAGES, UPRIGHT, VARIABLES, Variable


@dataclass(frozen=True)
class Layout:
    """Variables with the shape of one sample, and the coordinates of their axes.

    variables: name -> (declaration, shape). For a variable along `sample` the shape is one
        sample's, without that axis.
    coordinates: name -> (axis, values).
    """

    variables: dict[str, tuple[Variable, tuple[int, ...]]]
    coordinates: dict[str, tuple[str, np.ndarray]] = field(repr=False)

    def bytes_per_sample(self) -> dict[str, int]:
        """Uncompressed bytes of each variable along `sample`, for one sample, coordinates aside."""
        return {
            name: prod(shape) * np.dtype(declared.stored).itemsize
            for name, (declared, shape) in self.variables.items()
            if declared.dims[0] == "sample" and name not in FOUND_COORDINATES
        }

    def uprights(self) -> dict[str, tuple[str, np.ndarray]]:
        """Coordinates of the axes that run down a picture: 0, -1, ..., so that plots draw it upright."""
        sizes: dict[str, int] = {}
        for declared, shape in self.variables.values():
            sizes |= zip(reversed(declared.dims), reversed(shape), strict=False)
        return {axis: (axis, -np.arange(sizes[axis])) for axis in UPRIGHT if axis in sizes}


def layout(
    blocks: Sequence[Block],
    adapter_blocks: Sequence[Block],
    capture: Capture,
    *,
    streams: Sequence[str],
    steps: int,
    branches: Sequence[str],
    latent: tuple[int, ...],
    image: tuple[int, ...] | None,
    grid: tuple[int, int],
    full: dict[str, tuple[int, ...]],
    precision: str = "float32",
    injections: Sequence[Injection] | None = None,
) -> Layout:
    """The layout of a run.

    streams: those of `STREAMS` that occur in the run, in that order. branches: likewise.
    latent: (channel, y, x) of the unpacked latents. image: (row, column) in pixels, None if the
    call returns latents. grid: (token_y, token_x) of the image tokens. full: the sites whose whole
    tensors are kept, each with its (token, channel), and precision: of their numbers.
    injections: the places that adapters add at; None for those of FLUX's ControlNet alone, if there
    is one.
    """
    if injections is None:
        flux = blocks and blocks[0].kind in ("double", "single")
        injections = places_between(blocks) if adapter_blocks and flux else ()
    sizes = {
        **dict(zip(("channel", "y", "x"), latent, strict=True)),
        **dict(zip(("token_y", "token_x"), grid, strict=True)),
        **dict(zip(("row", "column"), image or (0, 0), strict=True)),
        "step": steps,
        "branch": len(branches),
        "block": len(blocks),
        "adapter_block": len(adapter_blocks),
        "injection": len(injections),
        "stream": len(streams),
        "stage": len(STAGES),
        "rgb": 3,
    }
    left_out = set() if image else {"image"}
    if not adapter_blocks:
        left_out.add("adapter_attention_norm")
    if not injections:
        left_out.add("contribution")
    if not capture.velocity:
        left_out.add("velocity")
    if capture.level != "tokens":
        left_out |= {"attention_token_norm", "residual_token_norm"}

    variables: dict[str, tuple[Variable, tuple[int, ...]]] = {}
    for name, declared in VARIABLES.items():
        if name not in left_out:
            dims = [d for d in declared.dims if d != "sample"]
            variables[name] = declared, tuple(sizes[d] for d in dims)
    for site, (token, channel) in full.items():
        shape = steps, len(branches), token, channel
        variables[site] = full_variable(site, token, channel, precision), shape

    coordinates: dict[str, tuple[str, np.ndarray]] = {
        "step": ("step", np.arange(steps)),
        "branch": ("branch", np.array(branches)),
        "stream": ("stream", np.array(streams)),
        "stage": ("stage", np.array(STAGES)),
        **_of_blocks("block", blocks),
        "rgb": ("rgb", np.array(["red", "green", "blue"])),
    }
    if adapter_blocks:
        coordinates |= _of_blocks("adapter_block", adapter_blocks)
    if injections:
        coordinates["injection"] = "injection", np.array([one.name for one in injections])
        for word in Injection._fields:
            values = np.array([getattr(one, word) for one in injections])
            coordinates[f"injection_{word}"] = "injection", values
    return Layout(variables, coordinates)


def _of_blocks(axis: str, blocks: Sequence[Block]) -> dict[str, tuple[str, np.ndarray]]:
    """The coordinates of an axis of blocks, which are given in order of execution."""
    return {
        axis: (axis, np.array([b.name for b in blocks])),
        f"{axis}_kind": (axis, np.array([b.kind for b in blocks])),
        f"{axis}_index": (axis, np.arange(len(blocks))),
    }


def full_variable(site: str, token: int, channel: int, kind: str = "float32") -> Variable:
    """The declaration of a whole tensor; its token and channel axes are named by their sizes.

    Streams and U-Net levels differ in size, and one Zarr group has one size for an axis name. kind: the
    tensor's precision, of `hooks.whole.KINDS`.
    """
    dims = ("sample", "step", "branch", f"token_{token}", f"hidden_channel_{channel}")
    meaning = f"whole output tensor at {site}, padding included"
    if kind == "bfloat16":
        meaning += "; the bits of bfloat16 numbers, the upper half of those of a float32"
    return Variable(dims, kind, "1", meaning, whole=True)
