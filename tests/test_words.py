"""Words that no tokenizer of a backbone knows are named, once, before anything is made of them."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from stepscope.probes.words import unknown_words
from tests.shell import listed, tiny

MODELS = Path(__file__).parents[1] / "pocket" / "models"
POCKET = [
    AutoTokenizer.from_pretrained(MODELS / "flux-dev" / t) for t in ("tokenizer", "tokenizer_2")
]


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["portrait photo of a person"], []),
        (["Portrait photo, of a person. At the BEACH!"], []),
        (["portrait photo of a wizard, Riding a red dragon"], ["wizard", "Riding", "dragon"]),
        (["a wizard", "", "the wizard in an office", "a t-shirt with t-rex"], ["wizard", "t-rex"]),
    ],
)
def test_words_outside_the_grammar_are_named_as_they_were_written(texts, words):
    assert unknown_words(POCKET, texts) == words


def test_a_word_that_one_tokenizer_knows_is_known():
    tiny_tokenizer = AutoTokenizer.from_pretrained(
        Path(__file__).parent / "reference" / "infinite-you" / "flux-dev" / "tokenizer"
    )
    assert unknown_words([tiny_tokenizer], ["a cinematic hoodie"]) == ["hoodie"]
    assert unknown_words([POCKET[0], tiny_tokenizer], ["a cinematic hoodie"]) == []


def test_tokenizer_that_spells_words_never_warns():
    """As FLUX.1's CLIP: pieces of bytes, and an unknown token that stands in no text."""
    alphabet = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    spelling = Tokenizer(BPE(alphabet | {"<|endoftext|>": len(alphabet)}, []))
    spelling.pre_tokenizer = pre_tokenizers.ByteLevel()
    spelling.decoder = decoders.ByteLevel()
    end = "<|endoftext|>"
    clip = PreTrainedTokenizerFast(
        tokenizer_object=spelling, unk_token=end, eos_token=end, pad_token=end
    )
    assert unknown_words([clip, *POCKET], ["a wizard on 火星 🚀"]) == []


def test_command_line_warns_in_one_line(typed, tmp_path):
    prompts = listed("a wizard in a suit", "a man", "the old wizard")
    words = tiny(prompts=prompts, steps=1, negative_prompt="blurry", out=tmp_path / "run.zarr")
    answer = typed(words)
    assert answer.status == 0
    assert answer.err.splitlines()[0] == (
        "warning: flux_dev does not know 'wizard', 'old', 'blurry': such words have no effect"
    )
    assert answer.err.count("warning") == 1


def test_command_line_is_silent_about_words_that_are_known(typed, tmp_path):
    assert "warning" not in typed(tiny(steps=1, out=tmp_path / "run.zarr")).err
