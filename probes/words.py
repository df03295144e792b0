"""Words that a backbone does not know: its images cannot follow them, so they are named beforehand."""

import sys
from collections.abc import Iterable, Sequence
from typing import Any


def unknown_words(tokenizers: Sequence[Any], texts: Iterable[str]) -> list[str]:
    """Words as they were written, once each, that every tokenizer maps to its unknown token.

    That is of a vocabulary of whole words: FLUX.1's CLIP spells any word in bytes and knows them all.
    """
    found: dict[str, None] = {}
    for text in texts:
        unknown = [_unknown(tokenizer, text) for tokenizer in tokenizers]
        if unknown:
            found |= dict.fromkeys(word for word in unknown[0] if all(word in u for u in unknown))
    return list(found)


def warn_of_unknown(pipe: Any, backbone: str, texts: Iterable[str]) -> None:
    """Name the words that the pipeline's tokenizers do not know, in one line on standard error."""
    named = (getattr(pipe, name, None) for name in ("tokenizer", "tokenizer_2"))
    tokenizers = [tokenizer for tokenizer in named if tokenizer is not None]
    words = unknown_words(tokenizers, texts)
    if words:
        named = ", ".join(map(repr, words))
        print(
            f"warning: {backbone} does not know {named}: such words have no effect", file=sys.stderr
        )


def _unknown(tokenizer: Any, text: str) -> list[str]:
    if not tokenizer.is_fast or tokenizer.unk_token_id is None:
        return []
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    pairs = zip(found["input_ids"], found["offset_mapping"], strict=True)
    return [text[start:end] for token, (start, end) in pairs if token == tokenizer.unk_token_id]
