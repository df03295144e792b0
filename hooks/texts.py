"""What text an embedding is of, and how many of its tokens are real and not padding.

FLUX pads a prompt to `max_sequence_length` and masks nothing, so that most of what is called text
may be padding. A pipeline hands embeddings alone to its denoiser; what they came of is seen where
the pipeline encodes them.
"""

import weakref
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import nn

from stepscope.hooks.families import Tokens
from stepscope.hooks.families.arguments import argument
from stepscope.hooks.patch import replaced


class Encoded(NamedTuple):
    """An embedding's prompts and their numbers of real tokens; None for what was not seen.

    left: the padding stands before them.
    """

    prompts: list[str] | None
    lengths: tuple[int, ...] | None
    left: bool = False


class Texts:
    """Remembers the embeddings that a pipeline's `encode_prompt` returned, as long as they live.

    encoder: name of the component whose tokens are the text stream, None if none are.
    """

    def __init__(self, pipe: Any, encoder: str | None) -> None:
        self._pipe, self._encoder = pipe, encoder
        self._known: list[tuple[weakref.ref[torch.Tensor], Encoded]] = []
        self._read: list[tuple[tuple[int, ...], bool]] = []
        """Of each run of the encoder, the lengths of its rows, and whether padding stands before them."""

    def attach(self, stack: ExitStack) -> None:
        """Watch until `stack` closes."""
        if not hasattr(self._pipe, "encode_prompt"):
            return
        stack.enter_context(replaced(self._pipe, "encode_prompt", self._encode))
        encoder = getattr(self._pipe, self._encoder, None) if self._encoder else None
        if encoder is not None:
            hook = encoder.register_forward_pre_hook(self._tokens, with_kwargs=True)
            stack.callback(hook.remove)

    def of(self, embeds: Any) -> Encoded:
        """What is known of an embedding (batch, token, channel)."""
        if embeds is None:  # as a reference to an embedding that is gone is
            return Encoded(None, None)
        alive = [(ref(), encoded) for ref, encoded in self._known]
        return next((e for known, e in alive if known is embeds), Encoded(None, None))

    def told(self, tokens: Tokens, args: Any, kwargs: Mapping[str, Any], rows: int) -> Tokens:
        """The tokens of a pass, with those of its text that are no padding if they are known."""
        if tokens.lengths is not None:
            return tokens
        embeds = self.of(argument(args, kwargs, 1, "encoder_hidden_states"))
        if embeds.lengths is None:
            return tokens
        known = embeds.lengths
        # repeats stand together
        every = tuple(known[i * len(known) // rows] for i in range(rows))
        return tokens._replace(lengths=every, left=embeds.left)

    def _encode(self, original: Any, *args: Any, **kwargs: Any) -> Any:
        self._read = []
        result = original(*args, **kwargs)
        prompt = argument(args, kwargs, 0, "prompt")
        given = self.of(kwargs.get("prompt_embeds"))
        returned = result if isinstance(result, tuple) else (result,)
        embeds = returned[0]
        if not isinstance(embeds, torch.Tensor):
            return result
        if prompt is not None:
            prompts = [prompt] if isinstance(prompt, str) else list(prompt)
            self._remember_made(returned, kwargs, prompts)
        elif given.prompts is not None and embeds is not kwargs.get("prompt_embeds"):
            self._remember(embeds, given)
        return result

    def _remember_made(
        self, returned: tuple[Any, ...], kwargs: Mapping[str, Any], prompts: list[str]
    ) -> None:
        """The embeddings that this encoding made, in the order in which the encoder ran for them."""
        made = [
            tensor
            for tensor in returned
            if isinstance(tensor, torch.Tensor)
            and tensor.ndim == 3
            and tensor.is_floating_point()
            and not any(tensor is given for given in kwargs.values())
        ]
        read = self._read if len(self._read) == len(made) else [(None, False)] * len(made)
        for nth, (tensor, (lengths, left)) in enumerate(zip(made, read, strict=True)):
            of_prompt = nth == 0 and tensor is returned[0]
            self._remember(tensor, Encoded(prompts if of_prompt else None, lengths, left))

    def _remember(self, embeds: torch.Tensor, encoded: Encoded) -> None:
        self._known = [(ref, e) for ref, e in self._known if ref() is not None]
        self._known.append((weakref.ref(embeds), encoded))

    def _tokens(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        ids: torch.Tensor = argument(args, kwargs, 0, "input_ids")
        tokenizer = getattr(self._pipe, str(self._encoder).replace("text_encoder", "tokenizer"))
        tokenizer = getattr(tokenizer, "tokenizer", tokenizer)  # of a processor, its own
        pad, end = tokenizer.pad_token_id, tokenizer.eos_token_id
        rows = ids.tolist()
        if pad == end:  # padded with the sign that ends a text: the first one is the text's
            ends = [row.index(end) + 1 if end in row else len(row) for row in rows]
            self._read.append((tuple(ends), False))
            return
        real = [[i for i, token in enumerate(row) if token != pad] for row in rows]
        left = any(row[0] == pad for row in rows) and all(row[-1] != pad for row in rows)
        whole = len(rows[0])
        lengths = [whole - min(r, default=whole) if left else max(r, default=-1) + 1 for r in real]
        self._read.append((tuple(lengths), left))
