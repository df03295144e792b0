"""Blocks in which image and text attend to each other: how their modules return the two streams."""

from typing import Any

import torch

from stepscope.hooks.sites import Block, Read, Site

BOTH = ("image", "text")


def blocks_of(
    kind: str, modules: Any, attention: Read, residual: Read, streams: tuple[str, ...] = BOTH
) -> list[Block]:
    """Blocks of one kind, each with an attention `attn`, in order of execution.

    attention, residual: how the outputs of the attention and of the block are read. streams: of the
        attention.
    """
    return [
        Block(
            f"{kind}.{index:02d}",
            kind,
            index,
            module,
            (
                Site("attention", streams, module.attn, attention),
                Site("residual", BOTH, module, residual),
            ),
        )
        for index, module in enumerate(modules)
    ]


def in_order(output: Any, image_tokens: int) -> tuple[torch.Tensor, ...]:
    """An attention of two streams: image, text, and with an IP-Adapter what it adds to the image."""
    return output


def text_first(output: Any, image_tokens: int) -> tuple[torch.Tensor, ...]:
    """A block of two streams: (text, image)."""
    return output[1], output[0]


def one_sequence(output: Any, image_tokens: int) -> tuple[torch.Tensor, ...]:
    """A module on one sequence, [text; image]."""
    # One call for both views: two slices take as long as a norm.
    text, image = torch.split_with_sizes(output, (output.shape[1] - image_tokens, image_tokens), 1)
    return image, text


def attention_before_mlp(width: int) -> Read:
    """What is given to the last projection of a module that runs attention and MLP side by side.

    width: channels of attention's part, which come first.
    """

    def read(given: Any, image_tokens: int) -> tuple[torch.Tensor, ...]:
        return one_sequence(given[..., :width], image_tokens)

    return read


def image_alone(output: Any, image_tokens: int) -> tuple[torch.Tensor, ...]:
    """A module on the image's tokens."""
    return (output,)


def first_alone(output: Any, image_tokens: int) -> tuple[torch.Tensor, ...]:
    """An attention of two streams of which only the image's goes on."""
    return (output[0],)


def second_alone(output: Any, image_tokens: int) -> tuple[torch.Tensor, ...]:
    """A block of two streams, (text, image), of which only the image's goes on."""
    return (output[1],)
