"""Pictures as IP-Adapters read them: through CLIP's image encoder, or given as its embeddings."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from transformers import CLIPImageProcessorPil, CLIPVisionModelWithProjection

from stepscope.probes.adapters.ip_adapter_file import Kind
from stepscope.probes.faces import (
    Face,
    FaceError,
    FaceReader,
    Finder,
    arrays_of,
    is_embedding,
    read_embedding,
)
from stepscope.probes.pictures import read_picture
from stepscope.probes.recognisers import aligned
from stepscope.probes.weights import explained, subfolder

POSITIVE, NEGATIVE = "image_embeds", "negative_image_embeds"
SIDE = 224
NO_FACE = np.full(512, np.nan, np.float32)


@dataclass
class PictureReader:
    """Reads and encodes pictures; loads the encoder at the first one.

    encoder: a folder or `OWNER/NAME/FOLDER` of the hub; key: the setting that names it. kind: of the
    adapter; "plus" ones read the last hidden states but one of every patch, and not the projected class
    token, and for FLUX's nothing is the embedding of a black picture, as diffusers has it, and not zeros.
    """

    encoder: str
    device: str
    kind: Callable[[], Kind]
    key: str = "adapter.encoder"
    _loaded: tuple[Any, Any] | None = None

    def read(self, name: str, path: Path) -> Face:
        """Raises FaceError for embeddings of another form, PictureError, WeightsError."""
        if is_embedding(path):
            kind = self.kind()
            given = read_embeddings(path, hidden=kind.hidden)
            if (width := given[POSITIVE].shape[-1]) != kind.embedding:
                raise FaceError(
                    f"{path}: pictures are embedded in {width} numbers, and adapter.path reads "
                    f"{kind.embedding}: name the image encoder that it was trained with, or its embeddings"
                )
            return Face(name, NO_FACE, None, {"source": "embedding"}, 0.0, given)
        picture = read_picture(path, "picture")
        given, seconds = self.encoded(picture)
        found = {"source": "picture", "picture": [picture.width, picture.height]}
        return Face(name, NO_FACE, None, found, seconds, given, as_seen(picture))

    def encoded(self, picture: Image.Image) -> tuple[dict[str, np.ndarray], float]:
        """What the encoder makes of a picture and of none, and the seconds that it took."""
        network, processor = self._load()
        start = time.perf_counter()
        made = self._embedded(network, processor, picture)
        nothing = self._nothing(network, processor, made)
        return {POSITIVE: made, NEGATIVE: nothing}, time.perf_counter() - start

    @property
    def hidden(self) -> bool:
        return self.kind().hidden

    def _load(self) -> tuple[Any, Any]:
        if self._loaded is None:
            with explained(self.encoder, self.key):
                folder = subfolder(self.encoder, self.key)
                network: Any = CLIPVisionModelWithProjection.from_pretrained(folder)
                network = network.eval().requires_grad_(False).to(self.device)
            side = network.config.image_size
            sides = {"shortest_edge": side}, {"height": side, "width": side}
            self._loaded = network, CLIPImageProcessorPil(size=sides[0], crop_size=sides[1])
        return self._loaded

    def _embedded(self, network: Any, processor: Any, picture: Image.Image) -> np.ndarray:
        pixels = processor(images=picture, return_tensors="pt").pixel_values
        return self._of_pixels(network, pixels.to(self.device))

    def _of_pixels(self, network: Any, pixels: torch.Tensor) -> np.ndarray:
        """(image, channel), or (image, token, channel) of the hidden states; of one image."""
        with torch.no_grad():
            made = network(pixels, output_hidden_states=self.hidden)
        return (made.hidden_states[-2] if self.hidden else made.image_embeds).float().cpu().numpy()

    def _nothing(self, network: Any, processor: Any, made: np.ndarray) -> np.ndarray:
        """What stands for no picture, as each of diffusers' pipelines has it."""
        if self.kind().flux:
            side = network.config.image_size
            return self._embedded(network, processor, Image.new("RGB", (side, side)))
        if not self.hidden:
            return np.zeros_like(made)
        side = network.config.image_size
        return self._of_pixels(network, torch.zeros(1, 3, side, side, device=self.device))


@dataclass
class FacePictureReader:
    """Reads a face as a FaceID Plus does: its embedding, and CLIP's hidden states of its aligned crop.

    Follows the published use: the model card of h94/IP-Adapter-FaceID hands insightface's norm_crop of
    OpenCV's picture at 224 pixels, whose channels are blue, green, red, to `get_image_embeds`
    (tencent-ailab/IP-Adapter, ip_adapter_faceid.py), which gives it to CLIP as it is (its issue 430
    asks whether that was meant). In place of a photo, a `.npz` holds `face_embedding` (512,), and
    `image_embeds` and `negative_image_embeds`, (image, token, channel).
    """

    finder: Finder
    encoder: str
    device: str
    picture: PictureReader

    def read(self, name: str, path: Path) -> Face:
        """Raises FaceError, PictureError, WeightsError."""
        if is_embedding(path):
            face = read_embedding(name, path)
            return replace(face, given={**face.given, **read_embeddings(path, hidden=True)})
        face = self._reader.read(name, path)
        bgr = np.asarray(read_picture(path, "face"))[:, :, ::-1].copy()
        crop = aligned(bgr, np.array(face.found["keypoints"], np.float32), SIDE)
        given, seconds = self.picture.encoded(Image.fromarray(crop))
        return replace(face, given={**face.given, **given}, seconds=face.seconds + seconds)

    @cached_property
    def _reader(self) -> FaceReader:
        return FaceReader(self.finder, self.encoder, self.device)


def read_embeddings(path: Path, *, hidden: bool) -> dict[str, np.ndarray]:
    """Embeddings: `.npz` with `image_embeds` and `negative_image_embeds`, or `.npy` of the first.

    (image, channel), or with `hidden` (image, token, channel), also behind an axis of one. Without a
    negative one it is zeros, which hidden states never are: they need a `.npz`. Raises FaceError.
    """
    dims = 3 if hidden else 2
    form = "(image, token, channel)" if hidden else "(image, channel)"
    arrays = arrays_of(path, (POSITIVE, NEGATIVE), "embeddings of pictures")
    if POSITIVE not in arrays or (hidden and NEGATIVE not in arrays):
        wanted = f"{POSITIVE} and {NEGATIVE}" if hidden else POSITIVE
        raise FaceError(f"{path} has no {wanted}: name a .npz with them, {form} each")
    arrays.setdefault(NEGATIVE, np.zeros_like(arrays[POSITIVE]))
    found = {}
    for name, array in arrays.items():
        found[name] = array[0] if array.ndim == dims + 1 and len(array) == 1 else array
        if found[name].ndim != dims:
            raise FaceError(f"{path}: {name} is {array.shape}, and {form} is wanted")
    if found[POSITIVE].shape != found[NEGATIVE].shape:
        shapes = f"{found[POSITIVE].shape} and {found[NEGATIVE].shape}"
        raise FaceError(f"{path}: {POSITIVE} and {NEGATIVE} are {shapes}")
    return found


def as_seen(picture: Image.Image) -> UInt8[np.ndarray, "224 224 3"]:
    """The middle square of a picture in 224 x 224 pixels, as CLIP's processor cuts it."""
    scale = SIDE / min(picture.size)
    width, height = (max(SIDE, round(side * scale)) for side in picture.size)
    fitted = picture.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - SIDE) // 2, (height - SIDE) // 2
    return np.asarray(fitted.crop((left, top, left + SIDE, top + SIDE)))
