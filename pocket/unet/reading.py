"""How the U-Nets read a prompt: the grammar and its further words through small CLIPs."""

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from stepscope.pocket import grammar
from stepscope.pocket.process import autocast, device

LAYERS = 3
# Words of the grammar that the FLUX models never read.
FURTHER_WORDS = ("hat",)


class Words(NamedTuple):
    """What a U-Net sees of a prompt: (b, token, width), and SDXL's pooled (b, 128), else None."""

    tokens: Tensor
    pooled: Tensor | None

    def rows(self, which: Any) -> "Words":
        """Some rows of both."""
        return Words(self.tokens[which], None if self.pooled is None else self.pooled[which])


class Text(nn.Module):
    """The text encoders of a StableDiffusionPipeline, or of a StableDiffusionXLPipeline."""

    def __init__(self, encoders: Sequence[nn.Module]):
        super().__init__()
        self.encoders = nn.ModuleList(encoders)

    def forward(self, ids: Tensor) -> Words:
        """Ids (b, 32) to Words, as the pipelines read them."""
        with autocast():
            if len(self.encoders) == 1:
                return Words(self.encoders[0](input_ids=ids)[0].float(), None)
            read = [one(input_ids=ids, output_hidden_states=True) for one in self.encoders]
            tokens = torch.cat([one.hidden_states[-2] for one in read], -1)
            return Words(tokens.float(), read[1].text_embeds.float())

    def nothing(self, count: int) -> Words:
        """The unconditional branch: SD 1.5 reads the empty prompt, SDXL zeros."""
        empty = self(token_ids([""]))
        if empty.pooled is not None:
            empty = Words(torch.zeros_like(empty.tokens), torch.zeros_like(empty.pooled))
        return empty.rows(torch.zeros(count, dtype=torch.long, device=device()))


def token_ids(prompts: list[str]) -> Tensor:
    """CLIP ids (n, 32) on the current device, as the pipelines make them."""
    told = tokenizer()(
        prompts,
        padding="max_length",
        max_length=grammar.TOKENS,
        truncation=True,
        return_tensors="pt",
    )
    return told.input_ids.to(device())


@cache
def tokenizer() -> Any:
    """The grammar's tokenizer with the further words."""
    return grammar.clip_tokenizer(FURTHER_WORDS)
