"""From a photo to what PuLID reads of a face: a recogniser's embedding, and EVA-CLIP's outputs.

Follows the published `get_id_embedding` (github.com/ToTheBeginning/PuLID at 1aa2fc7,
pulid/pipeline_flux.py) but for one thing. There EVA-CLIP is shown the face nearest to the centre, aligned
by keypoints of facexlib's RetinaFace; here the face that is embedded, aligned by the same keypoints.
"""

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from stepscope.probes.adapters.bisenet import BiSeNet, load_bisenet
from stepscope.probes.adapters.eva_clip import EvaClip, load_eva_clip
from stepscope.probes.recognisers import Encode, aligned, load_encoder

SIDE = 512
# facexlib, utils/face_restoration_helper.py: eyes, nose, corners of the mouth of FFHQ's faces, (x, y)
TEMPLATE = np.array(
    [
        [192.98138, 239.94708],
        [318.90277, 240.1936],
        [256.63416, 314.01935],
        [201.26117, 371.41043],
        [313.08905, 371.15118],
    ]
)
OUTSIDE = (135, 133, 132)
"""What lies beyond the photo's edge, BGR."""
BACKGROUND = (0, 7, 8, 9, 14, 15, 16, 18)
"""Classes of BiSeNet that are made white: background, ears, earring, neck, necklace, cloth and hat."""
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
OPENAI = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
GREY = (0.299, 0.587, 0.114)


class Seen(NamedTuple):
    """What PuLID reads of one face.

    raw: the recogniser's embedding, not normalised. clip: EVA-CLIP's class output, of unit norm. hidden:
    its hidden states, from the shallowest.
    """

    raw: Float[np.ndarray, " number"]
    clip: Float[np.ndarray, " channel"]
    hidden: Float[np.ndarray, "5 token width"]


@dataclass(frozen=True)
class PulidEncoder:
    """Reads a face in a photo.

    embed: the recogniser (antelopev2's), as it is. parsing: tells the face from what is around it, which is
    made white; without it the background stays, which PuLID was not trained with.
    """

    embed: Encode
    clip: EvaClip
    parsing: BiSeNet | None

    @classmethod
    def load(cls, encoder: str, clip: str, parsing: str | None, device: str) -> "PulidEncoder":
        """encoder: an ArcFace-form `.onnx`; clip, parsing: the published files. Raises WeightsError."""
        embed = load_encoder(encoder, device, unit=False)
        parser = None if parsing is None else load_bisenet(parsing).to(device)
        return cls(embed, load_eva_clip(clip).to(device), parser)

    def __call__(
        self, image: UInt8[np.ndarray, "row column 3"], keypoints: Float[np.ndarray, "5 2"]
    ) -> Seen:
        """image: BGR. keypoints: (x, y) in its pixels."""
        raw = self.embed(aligned(image, keypoints))
        face = face_of(image, keypoints).to(self.clip.cls_token.device)
        features = face_features(face, self._background(face))
        output, hidden = self.clip(as_clip_sees(features, self.clip.size))
        unit = output / output.norm(dim=1, keepdim=True)
        return Seen(raw, *(part[0].cpu().numpy() for part in (unit, hidden)))

    def _background(
        self, face: Float[Tensor, "1 3 row column"]
    ) -> Bool[Tensor, "1 1 row column"] | None:
        if self.parsing is None:
            return None
        classes = self.parsing(_normalised(face, *IMAGENET)).argmax(1, keepdim=True)
        return torch.isin(classes, torch.tensor(BACKGROUND, device=face.device))


def face_of(
    image: UInt8[np.ndarray, "row column 3"], keypoints: Float[np.ndarray, "5 2"]
) -> Float[Tensor, "1 3 512 512"]:
    """The face of a BGR image, turned and scaled to `TEMPLATE`: RGB in [0, 1]."""
    matrix, _ = cv2.estimateAffinePartial2D(
        keypoints.astype(np.float64), TEMPLATE, method=cv2.LMEDS
    )
    crop = cv2.warpAffine(image, matrix, (SIDE, SIDE), borderValue=OUTSIDE)
    return torch.from_numpy(rearrange(crop[:, :, ::-1], "y x c -> 1 c y x") / np.float32(255))


def face_features(
    face: Float[Tensor, "n 3 row column"], background: Bool[Tensor, "n 1 row column"] | None
) -> Float[Tensor, "n 3 row column"]:
    """In grey, on white where the background is known."""
    weights = torch.tensor(GREY, device=face.device)[:, None, None]
    grey = (face * weights).sum(1, keepdim=True).expand_as(face)
    return grey if background is None else grey.masked_fill(background, 1.0)


def as_clip_sees(
    features: Float[Tensor, "n 3 row column"], size: int
) -> Float[Tensor, "n 3 {size} {size}"]:
    """Resized and normalised: bicubic without antialiasing, as torchvision 0.15.2, which PuLID asks for."""
    small = F.interpolate(features, (size, size), mode="bicubic", align_corners=False)
    return _normalised(small, *OPENAI)


def _normalised(image: Tensor, mean: tuple[float, ...], deviation: tuple[float, ...]) -> Tensor:
    shape = 1, 3, 1, 1
    return (image - image.new_tensor(mean).view(shape)) / image.new_tensor(deviation).view(shape)
