"""Whether an image obeys its prompt by CLIP (Radford et al. 2021) through transformers."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn import functional
from transformers import CLIPModel, CLIPTokenizer

from stepscope.analysis.metrics.dinov2 import prepared
from stepscope.analysis.metrics.edited_prompt import EditedPrompt
from stepscope.analysis.metrics.metric import digests
from stepscope.probes.backbones import pick_device
from stepscope.probes.interventions.names import CLIP
from stepscope.probes.weights import explained, folder

MEAN, DEVIATION = (
    (0.48145466, 0.4578275, 0.40821073),
    (0.26862954, 0.26130258, 0.27577711),
)  # CLIP's
FILES = ["*.json", "*.txt", "*.safetensors"]


@dataclass(frozen=True)
class EditedPromptClip(EditedPrompt):
    """Cosine of CLIP's embeddings of prompt and image (CLIPScore, Hessel et al. 2021, without its 2.5).

    clip: hub id or folder. The whole image is brought to the square that CLIP sees. Of a prompt CLIP reads
    as many tokens as it has positions, 77, and the rest is left out.
    """

    clip: str = "openai/clip-vit-large-patch14"
    name: ClassVar[str] = "edited_prompt_clip"
    variable: ClassVar[str] = CLIP
    what: ClassVar[str] = "cosine of CLIP's embeddings of prompt and image"

    def model(self) -> dict[str, Any]:
        return {"files": digests(folder(self.clip, "clip", FILES))}

    def preflight(self) -> None:
        load(self.clip, "cpu")

    def score(self, images: np.ndarray, prompts: Sequence[str]) -> np.ndarray:
        network, tokenizer = load(self.clip, pick_device(self.device))
        return cosines(network, tokenizer, images, prompts)


@cache
def load(path: str, device: str) -> tuple[Any, Any]:
    """The network and its tokenizer. Raises WeightsError."""
    with explained(path, "clip"):
        where = folder(path, "clip", FILES)
        network: Any = CLIPModel.from_pretrained(where)
        tokenizer = CLIPTokenizer.from_pretrained(where)
    return network.eval().requires_grad_(False).to(device), tokenizer


@torch.inference_mode()
def cosines(network: Any, tokenizer: Any, images: np.ndarray, prompts: Sequence[str]) -> np.ndarray:
    """Cosines (image,) of images (image, row, column, rgb) uint8 and their prompts."""
    size, length = (
        network.config.vision_config.image_size,
        network.config.text_config.max_position_embeddings,
    )
    unlike = list(dict.fromkeys(prompts))
    words = tokenizer(
        unlike, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    ).to(network.device)
    text = network.get_text_features(**words)
    text = getattr(text, "pooler_output", text)  # transformers 5 returns an output
    seen = []
    for pixels in prepared(images, size, (MEAN, DEVIATION)):
        out = network.get_image_features(pixel_values=pixels.to(network.device))
        seen.append(getattr(out, "pooler_output", out))
    chosen = text[[unlike.index(prompt) for prompt in prompts]]
    return functional.cosine_similarity(chosen, torch.cat(seen)).float().cpu().numpy()
