"""Whether an image obeys its prompt by CLIP (Radford et al. 2021) through transformers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
import xarray as xr
from torch.nn import functional
from transformers import CLIPModel, CLIPTokenizer

from stepscope.analysis.metrics.dinov2 import prepared
from stepscope.analysis.metrics.edited_prompt import EditedPrompt
from stepscope.analysis.metrics.metric import Metric, Quantity, digests
from stepscope.probes.backbones import pick_device
from stepscope.probes.interventions.names import CLIP
from stepscope.probes.weights import explained, folder

MEAN, DEVIATION = (
    (0.48145466, 0.4578275, 0.40821073),
    (0.26862954, 0.26130258, 0.27577711),
)  # CLIP's
FILES = ["*.json", "*.txt", "*.safetensors"]


@dataclass(frozen=True)
class ClipOfText:
    """Cosine of CLIP's embeddings of prompt and image (CLIPScore, Hessel et al. 2021, without its 2.5).

    clip: hub id or folder. The whole image is brought to the square that CLIP sees. Of a prompt CLIP reads
    as many tokens as it has positions, 77, and the rest is left out.
    """

    clip: str = "openai/clip-vit-large-patch14"
    device: str = "auto"
    what: ClassVar[str] = "cosine of CLIP's embeddings of prompt and image"

    def model(self) -> dict[str, Any]:
        return {"files": digests(folder(self.clip, "clip", FILES))}

    def preflight(self) -> None:
        load(self.clip, "cpu")

    def score(self, images: np.ndarray, prompts: Sequence[str]) -> np.ndarray:
        """Scores (image,) of images (image, row, column, rgb) uint8, each for its prompt."""
        network, tokenizer = load(self.clip, pick_device(self.device))
        return cosines(network, tokenizer, images, prompts)


@dataclass(frozen=True)
class PromptClip(ClipOfText, Metric):
    """CLIP's score of the final image for its prompt; NaN where the run does not know the prompt's text."""

    name: ClassVar[str] = CLIP
    reads: ClassVar[tuple[str, ...]] = ("image",)

    def quantities(self, run: xr.Dataset) -> Mapping[str, Quantity]:
        told = f"{self.what}, of the final image; NaN where the prompt is empty or was given as embeddings"
        return {self.name: Quantity((), "float32", "1", told, "higher is better")}

    def settings(self, run: xr.Dataset) -> dict[str, Any]:
        return {"model": self.model()}

    def load(self, run: xr.Dataset) -> None:
        load(self.clip, pick_device(self.device))

    def __call__(self, samples: xr.Dataset) -> dict[str, np.ndarray]:
        prompts = samples["prompt"].values.astype(object)
        values, known = np.full(len(prompts), np.nan, np.float32), prompts != ""
        if known.any():
            values[known] = self.score(samples["image"].values[known], prompts[known].tolist())
        return {self.name: values}


@dataclass(frozen=True)
class EditedPromptClip(ClipOfText, EditedPrompt):
    """CLIP's score of an edited sample's image for its prompt, and of the image without the edit."""

    name: ClassVar[str] = "edited_prompt_clip"
    variable: ClassVar[str] = CLIP


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
    length = network.config.text_config.max_position_embeddings
    unlike = list(dict.fromkeys(prompts))
    words = tokenizer(
        unlike, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    ).to(network.device)
    text = network.get_text_features(**words)
    text = getattr(text, "pooler_output", text)  # transformers 5 returns an output
    chosen = text[[unlike.index(prompt) for prompt in prompts]]
    return functional.cosine_similarity(chosen, embedded(network, images)).float().cpu().numpy()


@torch.inference_mode()
def embedded(network: Any, images: np.ndarray) -> torch.Tensor:
    """Embeddings (image, width), not of unit norm, of images (image, row, column, rgb) uint8."""
    seen, size = [], network.config.vision_config.image_size
    for pixels in prepared(images, size, (MEAN, DEVIATION)):
        out = network.get_image_features(pixel_values=pixels.to(network.device))
        seen.append(getattr(out, "pooler_output", out))
    return torch.cat(seen)
