"""The settings of all metrics together, as `stepscope measure` takes them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stepscope.analysis.metrics.perceptual_pocket import PocketDistance
from stepscope.analysis.metrics.prompt_pocket import EditedPromptPocket
from stepscope.analysis.metrics.reference_pocket import PocketHat, PocketLook


@dataclass(frozen=True)
class Settings:
    """Parameters of all metrics; each field is documented by the metric that has it."""

    recognisers: Sequence[str] | None = None
    det_size: int | None = None
    root: str = "~/.insightface"
    vae: str | None = None
    image_size: int | None = None
    face_size: int | None = None
    lpips: str = "alex"
    dinov2: str = "facebook/dinov2-base"
    dinov2_size: int = 224
    gram: str = "vgg19"
    gram_size: int = 224
    many_step: str | None = None
    clip: str = "openai/clip-vit-large-patch14"
    readout: str = EditedPromptPocket.readout
    perceptual: str = PocketDistance.perceptual
    pocket_look: str = PocketLook.pocket_look
    pocket_hat: str = PocketHat.pocket_hat
    photos: Sequence[str] = ()
    references: Mapping[str, str] | Sequence[str] = ()
    device: str = "auto"
