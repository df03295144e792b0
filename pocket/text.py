"""The tiny T5 and CLIP that read the grammar, trained jointly with the base flow."""

from typing import Any

from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from stepscope.pocket import grammar
from stepscope.pocket.flow import TEXT_TOKENS, TEXT_WIDTH, Words
from stepscope.pocket.process import autocast, device

LAYERS, HEADS, HIDDEN = 2, 4, 256


class Text(nn.Module):
    """Both text encoders of a FluxPipeline."""

    def __init__(self, clip: CLIPTextModel, t5: T5EncoderModel):
        super().__init__()
        self.clip, self.t5 = clip, t5

    def forward(self, clip_ids: Tensor, t5_ids: Tensor) -> Words:
        """Ids (b, 32) each to Words, as FluxPipeline reads them (no attention mask for T5)."""
        with autocast():
            tokens = self.t5(input_ids=t5_ids)[0]
            pooled = self.clip(input_ids=clip_ids).pooler_output
        return Words(tokens.float(), pooled.float())


def new() -> Text:
    """Untrained text encoders on the current device, sized for the grammar's tokenizers."""
    clip, t5 = grammar.clip_tokenizer(), grammar.t5_tokenizer()
    return Text(CLIPTextModel(clip_config(clip, LAYERS)), T5EncoderModel(_t5(t5))).to(device())


def _t5(tokenizer: Any) -> T5Config:
    return T5Config(
        vocab_size=len(tokenizer),
        d_model=TEXT_WIDTH,
        d_kv=TEXT_WIDTH // HEADS,
        d_ff=HIDDEN,
        num_layers=LAYERS,
        num_heads=HEADS,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        relative_attention_num_buckets=16,
        relative_attention_max_distance=64,
    )


def clip_config(tokenizer: Any, layers: int) -> CLIPTextConfig:
    """A small CLIP. It pools at its first end of sentence; an end with id 2 would mean the old argmax."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=HIDDEN,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        max_position_embeddings=TEXT_TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        projection_dim=TEXT_WIDTH,
    )
