"""Likeness to the reference image by CLIP (Radford et al. 2021): cosine of two images' embeddings.

An IP-Adapter's own encoder is a CLIP too (OpenCLIP's ViT-H for SD 1.5, its bigG for SDXL): named here, it
would judge what it conditioned.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch.nn import functional

from stepscope.analysis.metrics.metric import Direction, digests
from stepscope.analysis.metrics.pairs import Comparison
from stepscope.analysis.metrics.prompt_clip import FILES, embedded, load
from stepscope.analysis.metrics.to_reference import (
    EditedToReference,
    StepToReference,
    ToReference,
)
from stepscope.probes.backbones import pick_device
from stepscope.probes.weights import folder


@dataclass(frozen=True)
class ClipLikeness(Comparison):
    """Cosine of CLIP's image embeddings. clip: hub id or folder.

    The whole image is brought to the square that CLIP sees; its own processor would cut margins off.
    """

    clip: str = "openai/clip-vit-large-patch14"
    device: str = "auto"
    what: ClassVar[str] = "cosine of CLIP's image embeddings"
    direction: ClassVar[Direction] = "higher is better"

    def model(self) -> dict[str, Any]:
        return {"files": digests(folder(self.clip, "clip", FILES))}

    def preflight(self) -> None:
        load(self.clip, "cpu")

    def network(self) -> Any:
        return load(self.clip, pick_device(self.device))[0]

    def compare(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        a, b = (embedded(self.network(), images) for images in (first, second))
        return functional.cosine_similarity(a, b).float().cpu().numpy()


@dataclass(frozen=True)
class ReferenceClip(ToReference, ClipLikeness):
    """CLIP likeness of the final image to the reference image."""

    name: ClassVar[str] = "reference_clip"


@dataclass(frozen=True)
class ReferenceClipStep(StepToReference, ClipLikeness):
    """CLIP likeness of each step's x0 to the reference image."""

    name: ClassVar[str] = "reference_clip_step"


@dataclass(frozen=True)
class EditedReferenceClip(EditedToReference, ClipLikeness):
    """CLIP likeness of an edited sample's final image to the reference image."""

    name: ClassVar[str] = "edited_reference_clip"
