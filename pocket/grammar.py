"""The language of prompts: sentences from attributes, its vocabulary, its two tokenizers.

    python -m pocket.grammar           # writes the tokenizers of flux-dev and flux-schnell

A sentence names any subset of the attributes; the simplest is "portrait photo of a person".
"""

import re
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from stepscope.pocket.process import MODELS
from stepscope.pocket.world import ATTRIBUTES

SIMPLEST = "portrait photo of a person"
TOKENS = 32

STYLE = {"photo": "photo", "sketch": "pencil sketch", "poster": "poster"}
SCENE = {
    "studio": "in a studio",
    "beach": "at the beach",
    "office": "in an office",
    "forest": "in a forest",
    "night": "on a street at night",
    "mountains": "in the mountains",
}
EXPRESSION = {"serious": "looking serious", "smiling": "smiling", "surprised": "looking surprised"}
ACCESSORY = {
    "none": "without accessories",
    "glasses": "with glasses",
    "beanie": "with a beanie",
    "headphones": "with headphones",
}
PHRASES: dict[str, tuple[str, ...]] = dict(ATTRIBUTES) | {
    "style": tuple(STYLE.values()),
    "scene": tuple(SCENE.values()),
    "expression": tuple(EXPRESSION.values()),
    "accessory": tuple(ACCESSORY.values()),
}
"""How a prompt names each value of each attribute, in the order of ATTRIBUTES."""
# From simple to style-conflicting, as in the paper's figure 5; every word is in the vocabulary.
COMPLEXITY: dict[str, tuple[str, ...]] = {
    "simple": (SIMPLEST, "close-up photo of a person", "half-body photo of a person"),
    "scene": (
        "portrait photo of a person at the beach",
        "portrait photo of a person in an office",
        "portrait photo of a person on a street at night",
    ),
    "clothed": (
        "portrait photo of a person at the beach wearing a yellow hoodie",
        "portrait photo of a person in an office wearing a black suit",
        "portrait photo of a person in a forest wearing a red sweater",
    ),
    "detailed": (
        "half-body photo of a person smiling at the beach wearing a blue t-shirt with glasses",
        "portrait photo of a person looking surprised in the mountains wearing a purple jacket"
        " with a beanie",
        "close-up photo of a person smiling on a street at night wearing a green hoodie"
        " with headphones",
    ),
    "stylised": (
        "portrait pencil sketch of a person in a forest wearing a red sweater",
        "portrait poster of a person on a street at night wearing a white suit",
        "half-body poster of a person smiling at the beach wearing a yellow t-shirt",
    ),
    "conflicting": (
        "portrait photo pencil sketch poster of a person at the beach wearing a black suit",
        "pencil sketch photo of a person in a studio on a street at night wearing a red hoodie",
        "poster pencil sketch of a person in an office in a forest wearing a blue suit sweater",
    ),
}


def sentence(attributes_row: Sequence[int], said_row: Sequence[bool]) -> str:
    """The prompt that names the said attributes of a row (both in the order of ATTRIBUTES).

    A colour is said with its clothing or not at all.
    """
    rows = zip(ATTRIBUTES.items(), attributes_row, said_row, strict=True)
    told = {key: values[int(index)] for (key, values), index, said in rows if said}
    words = [told["shot"]] if "shot" in told else []
    words += [STYLE[told["style"]]] if "style" in told else []
    words += ["of a person"] if words else ["a person"]
    words += [EXPRESSION[told["expression"]]] if "expression" in told else []
    words += [SCENE[told["scene"]]] if "scene" in told else []
    if "clothing" in told:
        words += ["wearing a", *([told["colour"]] if "colour" in told else []), told["clothing"]]
    words += [ACCESSORY[told["accessory"]]] if "accessory" in told else []
    return " ".join(words)


def split(text: str) -> list[str]:
    """The words that the tokenizers see: lower case, punctuation gone."""
    return re.sub(r"[,.;:!?\"()]", " ", text.lower()).split()


def _vocabulary() -> tuple[str, ...]:
    phrases = [*STYLE.values(), *SCENE.values(), *EXPRESSION.values(), *ACCESSORY.values()]
    phrases += [*ATTRIBUTES["shot"], *ATTRIBUTES["clothing"], *ATTRIBUTES["colour"]]
    phrases += ["wearing a", SIMPLEST]
    return tuple(sorted({word for phrase in phrases for word in split(phrase)}))


VOCABULARY: tuple[str, ...] = _vocabulary()


def unknown_words(text: str) -> list[str]:
    """The words of a prompt that the grammar does not know, in order of appearance.

    The vocabulary can be read from a tokenizer alone: its `get_vocab()` without special tokens.
    """
    return list(dict.fromkeys(word for word in split(text) if word not in VOCABULARY))


def _tokenizer(
    vocabulary: dict[str, int], template: str, specials: Sequence[str], **roles: str
) -> PreTrainedTokenizerFast:
    core = Tokenizer(models.WordLevel(vocabulary, unk_token=roles["unk_token"]))
    core.normalizer = normalizers.Sequence(  # pyright: ignore[reportAttributeAccessIssue]
        [normalizers.Lowercase(), normalizers.Replace(Regex(r'[,.;:!?"()]'), " ")]
    )
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # pyright: ignore[reportAttributeAccessIssue]
    core.post_processor = processors.TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
        single=template, special_tokens=[(s, vocabulary[s]) for s in specials]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, model_max_length=TOKENS, padding_side="right", **roles
    )


def t5_tokenizer() -> PreTrainedTokenizerFast:
    """T5's form: pad 0, end 1, unknown 2, then the vocabulary; a sentence and its end."""
    words = {w: i for i, w in enumerate(("<pad>", "</s>", "<unk>", *VOCABULARY))}
    roles = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return _tokenizer(words, "$A </s>", ["</s>"], **roles)


def clip_tokenizer(further: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """CLIP's form: start, sentence, end; the end has the highest id, and pads. `further` words join."""
    start, end = "<|startoftext|>", "<|endoftext|>"
    words = {w: i for i, w in enumerate((*VOCABULARY, *further, "<unk>", start, end))}
    roles = {"bos_token": start, "eos_token": end, "pad_token": end, "unk_token": "<unk>"}
    return _tokenizer(words, f"{start} $A {end}", [start, end], **roles)


def save_tokenizers(folder: Path) -> None:
    """Write `tokenizer` and `tokenizer_2` into a FluxPipeline's folder."""
    clip_tokenizer().save_pretrained(folder / "tokenizer")
    t5_tokenizer().save_pretrained(folder / "tokenizer_2")


if __name__ == "__main__":
    for backbone in ("flux-dev", "flux-schnell"):
        save_tokenizers(MODELS / backbone)
