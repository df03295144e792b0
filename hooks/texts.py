"""What text an embedding is of, and how many of its tokens are real and not padding.

FLUX pads a prompt to `max_sequence_length` and masks nothing, so that most of what is called text
may be padding. A pipeline hands embeddings alone to its denoiser; what they came of is seen where
the pipeline encodes them.
"""

import weakref
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import nn

from stepscope.hooks.families.arguments import argument
from stepscope.hooks.patch import replaced


class Encoded(NamedTuple):
    """An embedding's prompts and their numbers of real tokens; None for what was not seen."""

    prompts: list[str] | None
    lengths: tuple[int, ...] | None


class Texts:
    """Remembers the embeddings that a pipeline's `encode_prompt` returned, as long as they live.

    encoder: name of the component whose tokens are the text stream, None if none are.
    """

    def __init__(self, pipe: Any, encoder: str | None) -> None:
        self._pipe, self._encoder = pipe, encoder
        self._known: list[tuple[weakref.ref[torch.Tensor], Encoded]] = []
        self._lengths: list[int] = []

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

    def lengths(self, embeds: Any, rows: int) -> tuple[int, ...] | None:
        """Real tokens of each row of a pass that reads an embedding; None if they are not known."""
        known = self.of(embeds).lengths
        if known is None:
            return None
        return tuple(known[i * len(known) // rows] for i in range(rows))  # repeats stand together

    def _encode(self, original: Any, *args: Any, **kwargs: Any) -> Any:
        self._lengths = []
        result = original(*args, **kwargs)
        prompt = argument(args, kwargs, 0, "prompt")
        given = self.of(kwargs.get("prompt_embeds"))
        returned = result if isinstance(result, tuple) else (result,)
        embeds = returned[0]
        if prompt is not None:
            prompts = [prompt] if isinstance(prompt, str) else list(prompt)
            self._remember(embeds, Encoded(prompts, tuple(self._lengths) or None))
        elif given.prompts is not None and embeds is not kwargs.get("prompt_embeds"):
            self._remember(embeds, given)
        return result

    def _remember(self, embeds: torch.Tensor, encoded: Encoded) -> None:
        self._known = [(ref, e) for ref, e in self._known if ref() is not None]
        self._known.append((weakref.ref(embeds), encoded))

    def _tokens(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        ids: torch.Tensor = argument(args, kwargs, 0, "input_ids")
        tokenizer = getattr(self._pipe, str(self._encoder).replace("text_encoder", "tokenizer"))
        pad, end = tokenizer.pad_token_id, tokenizer.eos_token_id
        for row in ids.tolist():
            if pad != end:
                self._lengths.append(
                    max((i for i, t in enumerate(row) if t != pad), default=-1) + 1
                )
            else:  # padded with the sign that ends a text: the first one is the text's
                self._lengths.append(row.index(end) + 1 if end in row else len(row))
