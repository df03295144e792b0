"""PuLID for FLUX (Guo et al. 2024, arXiv 2404.16022), injected by hooks: no transformer of its own.

Follows the published code, v0.9.1 (github.com/ToTheBeginning/PuLID at 1aa2fc7). Its `start_step` k is
`window=[k,N] window_unit=step`; its `timestep_to_start_cfg` is the study's `true_cfg_start`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from stepscope.hooks.errors import StepscopeError
from stepscope.probes.adapters.adapter import Adapter, ModelPlace, Reader, Reads, RunFacts
from stepscope.probes.adapters.face_models import encoder_place, pack_place
from stepscope.probes.adapters.loaded import Loaded, Steps
from stepscope.probes.adapters.pulid_encoder import PulidEncoder
from stepscope.probes.adapters.pulid_faces import CLIP, HIDDEN, PulidReader
from stepscope.probes.adapters.pulid_injection import declared, injected
from stepscope.probes.adapters.pulid_network import Pulid, check_fits, load_pulid, sizes_of
from stepscope.probes.faces import RAW, Face, Finder
from stepscope.probes.weights import WeightsError, file


@dataclass(frozen=True)
class PulidSettings(Adapter):
    """PuLID, and what it reads of a face.

    path: the file of weights, on this machine or `OWNER/NAME/FILE` of the hub. scale: the published
    `id_weight`. Files of `faces` are photos, or `.npz` with `id_cond` and `id_vit_hidden`, as the published
    `get_id_embedding` makes them. encoder: antelopev2's recogniser, an ArcFace-form `.onnx`. clip: the file
    of EVA02-CLIP-L-14-336. parsing: facexlib's BiSeNet, which tells the face from its background; None
    leaves the background, which PuLID was not trained with. detector: an insightface pack, by name under
    `detector_root` or by folder.
    """

    scale: float = 1.0
    encoder: str = "~/.insightface/models/antelopev2/glintr100.onnx"
    clip: str = "QuanSun/EVA-CLIP/EVA02_CLIP_L_336_psz14_s6B.pt"
    parsing: str | None = "models/parsing_bisenet.pth"
    detector: str = "antelopev2"
    detector_root: str = "~/.insightface"
    kind: Literal["pulid"] = "pulid"

    KIND: ClassVar[str] = "pulid"
    FAMILIES: ClassVar[tuple[str, ...]] = ("flux",)
    READS: ClassVar[Reads | None] = "face"
    PLACES: ClassVar[Mapping[str, str]] = {
        "path": "adapter",
        "encoder": "encoder",
        "clip": "clip",
        "parsing": "parsing",
        "detector": "detector",
        "detector_root": "detector",
    }

    def models(self) -> list[ModelPlace]:
        def place(role: str, key: str, where: str) -> ModelPlace:
            def find() -> Path:
                return file(where, role, download=False)

            own = role == "adapter"
            return ModelPlace(
                role, key, where, find, lambda path: [path], cast=own, held=own, faces=not own
            )

        return [
            place("adapter", "path", self.path),
            encoder_place(self.encoder),
            place("clip", "clip", self.clip),
            *([place("parsing", "parsing", self.parsing)] if self.parsing is not None else []),
            pack_place(self.detector, self.detector_root),
        ]

    @contextmanager
    def on_skeleton(self, denoiser: Any) -> Iterator[None]:
        try:
            check_file(file(self.path, "adapter", download=False), denoiser)
        except WeightsError:
            if file_is_here(self.path):
                raise
        with declared(denoiser):
            yield

    def load(self, facts: RunFacts) -> Loaded:
        network = load_pulid(file(self.path, "adapter"), facts.dtype)
        return LoadedPulid(network.to(facts.device))

    def reader(self, device: str) -> Reader:
        def load() -> PulidEncoder:
            clip = str(file(self.clip, "adapter.clip"))
            parsing = None if self.parsing is None else str(file(self.parsing, "adapter.parsing"))
            return PulidEncoder.load(self.encoder, clip, parsing, device)

        return PulidReader(self.finder(device), load)

    def finder(self, device: str) -> Finder:
        return Finder(self.detector, self.detector_root, device)


def file_is_here(place: str) -> bool:
    """Whether a file of weights is on this machine."""
    try:
        return file(place, "adapter", download=False).is_file()
    except WeightsError:
        return False


def check_file(path: Path, denoiser: Any) -> None:
    """Raise WeightsError for a file that is not PuLID's, or not for a transformer of these sizes."""
    config = denoiser.config
    check_fits(
        sizes_of(path),
        str(path),
        doubles=config.num_layers,
        singles=config.num_single_layers,
        width=config.num_attention_heads * config.attention_head_dim,
    )


@dataclass
class LoadedPulid(Loaded):
    """PuLID's networks on their device."""

    network: Pulid

    def hooked(
        self, adapter: PulidSettings, pipe: Any, steps: Steps
    ) -> AbstractContextManager[None]:
        inside = {step - steps.first for step in adapter.steps_on(steps.sigmas)}
        return injected(pipe, self.network, scale=adapter.scale, steps=inside)

    def given(
        self, adapter: PulidSettings, pipe: Any, faces: Sequence[Face], branches: int
    ) -> dict[str, Any]:
        sizes = self.network.sizes
        for one in faces:
            numbers = one.given[RAW].size + one.given[CLIP].size
            if (numbers, one.given[HIDDEN].shape[-1]) != (sizes.face, sizes.vit):
                raise StepscopeError(
                    f"face {one.name} is {numbers} numbers and tokens of {one.given[HIDDEN].shape[-1]}, "
                    f"and adapter.path reads {sizes.face} and {sizes.vit}"
                )
        if len({one.given[HIDDEN].shape for one in faces}) > 1:
            raise StepscopeError(
                "faces hold other numbers of EVA-CLIP's tokens: name one form for all"
            )
        face = np.stack([np.concatenate([one.given[RAW], one.given[CLIP]]) for one in faces])
        hidden = np.stack([one.given[HIDDEN] for one in faces])
        both = [torch.from_numpy(part).to(pipe.device) for part in (face, hidden)]
        self.network.identity = self.network.tokens(*both)
        if branches == 2:
            nobody = [torch.zeros_like(part[:1]) for part in both]
            self.network.unconditional = self.network.tokens(*nobody)
        return {}
