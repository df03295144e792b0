"""The judge of a benchmark: similarity of final latents, as images, to a person's reference face."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from stepscope.analysis.metrics.arcface import bgr, cosines, find
from stepscope.analysis.metrics.decode import load_vae, pictures, vae_folder
from stepscope.analysis.metrics.metric import digests
from stepscope.analysis.metrics.panel import load_pack, pack, pinned
from stepscope.hooks.errors import StepscopeError
from stepscope.probes.backbones import pick_device
from stepscope.probes.models import Models
from stepscope.probes.recognisers import EncodeMany


@dataclass(frozen=True)
class Judge:
    """A VAE, a detector and a recogniser. known: the recogniser's embedding (512,) of each person."""

    vae: Any
    finder: Any
    encode: EncodeMany
    known: Mapping[str, Float[np.ndarray, "512"]]

    def __call__(
        self, latents: Float[np.ndarray, "row channel y x"], people: Sequence[str]
    ) -> Float[np.ndarray, " row"]:
        """Cosine of each image's largest face to the person that it should show; 0 where no face is found,
        which is the mean between strangers."""
        images = bgr(pictures(self.vae, latents))
        wanted = np.stack([self.known[name] for name in people])
        return np.nan_to_num(cosines(self.encode, images, find(self.finder, images), wanted))


def load_judge(loaded: Models, judge: str) -> Judge:
    """The judge of these models' images. judge: an insightface pack, by folder or by name.

    Raises StepscopeError for the recogniser that conditions the adapter, and for a face without a picture.
    """
    study, root = loaded.study, "~/.insightface"
    assert study.adapter is not None
    folder, device = pack(judge, root), pick_device(study.device)
    encoders = [one for one in study.adapter.models() if one.role == "encoder"]
    circular = {hash_ for one in encoders for hash_ in digests(one.find()).values()}
    if {*digests(folder).values()} & circular:
        raise StepscopeError(
            f"judge={judge!r} is the recogniser that conditions the adapter: its similarity is circular"
        )
    size = pinned(None, (study.height, study.width))
    finder, encode = load_pack(str(folder), root, device, size)
    known = {}
    for name, face in loaded.faces.items():
        if face.crop is None:
            raise StepscopeError(f"faces: {name} is an embedding; the judge needs a picture")
        known[name] = encode([np.ascontiguousarray(face.crop[:, :, ::-1])])[0]
    vae = load_vae(str(vae_folder(study.backbone.path, {})), study.backbone.dtype, device)
    return Judge(vae, finder, encode, known)
