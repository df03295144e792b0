"""Which tokens of a module's stream are whose: image and reference, text and padding."""

from collections.abc import Sequence
from typing import NamedTuple

from stepscope.hooks.families import Family, Tokens


class Span(NamedTuple):
    """Tokens of one kind. row: of the batch, None for every row. tokens: None for all of the stream."""

    stream: str
    row: int | None
    tokens: slice | None


def spans(
    family: Family, tokens: Tokens, lengths: Sequence[int] | None, name: str, count: int
) -> list[Span]:
    """What a stream of a module is made of.

    lengths: real tokens of the text of each row, None where not known: then nothing tells text from
    padding, and there is no span. name: of the stream, as the site has it. count: its tokens.
    """
    if name == "image" and tokens.reference:
        both = Span("image", None, slice(0, tokens.image))
        return [both, Span("reference", None, slice(tokens.image, count))]
    if name != "text" or not family.pads:
        return [Span(name, None, None)]
    if lengths is None:
        return []
    # A FLUX ControlNet Union puts a token of its mode before the text.
    first = count - tokens.context
    same = len(set(lengths)) == 1
    rows = [(None, lengths[0])] if same else [*enumerate(lengths)]
    text = [Span("text", row, _text(tokens, first, n)) for row, n in rows if n]
    padding = [
        Span("padding", row, _padding(tokens, first, n)) for row, n in rows if n < tokens.context
    ]
    return text + padding


def _text(tokens: Tokens, first: int, length: int) -> slice:
    start = first + tokens.context - length if tokens.left else first
    return slice(start, start + length)


def _padding(tokens: Tokens, first: int, length: int) -> slice:
    if tokens.left:
        return slice(first, first + tokens.context - length)
    return slice(first + length, first + tokens.context)
