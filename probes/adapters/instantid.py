"""InstantID on SDXL: an image branch in the cross-attentions, and IdentityNet, a ControlNet of the face.

Follows the published pipeline (github.com/instantX-research/InstantID at 2145b67,
pipeline_stable_diffusion_xl_instantid.py); Wang et al. 2024, arXiv 2401.07519. The face's embedding is not
normalised, and nobody's is zeros. A sample's control image is the drawing of its own photo's keypoints,
where the photo is fitted into the picture as InfiniteYou fits one, unless `control_image` names one for
all. (Published: the photo is resized, and the picture has its size.)
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from PIL import Image
from torch import nn

from stepscope.hooks.clock import denoiser_of
from stepscope.hooks.errors import StepscopeError
from stepscope.probes.adapters.adapter import Adapter, ModelPlace, Part, Reader, Reads, RunFacts
from stepscope.probes.adapters.face_models import encoder_place, pack_place
from stepscope.probes.adapters.image_attention import (
    Attentions,
    attentions_on_skeleton,
    each_its_own,
    windowed,
)
from stepscope.probes.adapters.instantid_network import (
    BRANCH,
    IdentityNet,
    bare_network,
    branch_kind,
    check_network,
    load_network,
    published,
    weights,
)
from stepscope.probes.adapters.ip_adapter_file import Kind, load_file
from stepscope.probes.adapters.loaded import Loaded, Steps
from stepscope.probes.adapters.window import WindowUnit, fractions
from stepscope.probes.control import Control, drawn, keypoints_in, load_control
from stepscope.probes.faces import RAW, Face, FaceReader, Finder, is_embedding

NO_KEYPOINTS = (
    "is an embedding, which has no keypoints for IdentityNet: name control_image=photo.jpg, or their "
    "drawing with control_image_kind=keypoints"
)
UNIT = 1e-3  # antelopev2 gives embeddings some 20 long; one this near to 1 was normalised


@dataclass(frozen=True)
class InstantIDSettings(Adapter):
    """InstantID, and what finds and embeds the face that it reads.

    path: hub id or local folder with `ControlNetModel/` and `ip-adapter.bin`. scale, window: of the image
    branch (published: 0.8). controlnet_scale, controlnet_window: of IdentityNet (published: 0.8).
    encoder: a recogniser in ArcFace's form, antelopev2's glintr100.onnx. detector: an insightface pack, by
    name under `detector_root` or by folder.
    """

    scale: float = 0.8
    controlnet_scale: float = 0.8
    controlnet_window: tuple[float, float] = (0.0, 1.0)
    controlnet_window_unit: WindowUnit = "fraction"
    encoder: str = "~/.insightface/models/antelopev2/glintr100.onnx"
    detector: str = "antelopev2"
    detector_root: str = "~/.insightface"
    kind: Literal["instantid"] = "instantid"

    KIND: ClassVar[str] = "instantid"
    FAMILIES: ClassVar[tuple[str, ...]] = ("sdxl",)
    READS: ClassVar[Reads | None] = "face"
    FILLS: ClassVar[tuple[str, ...]] = ("a ControlNet", "an image prompt")
    PLACES: ClassVar[Mapping[str, str]] = {
        "path": "adapter",
        "encoder": "encoder",
        "detector": "detector",
        "detector_root": "detector",
    }

    def check(self, facts: RunFacts, faces: Sequence[str]) -> None:
        super().check(facts, faces)
        for face in faces:
            if facts.control_image is None and self.controlnet_scale and is_embedding(face):
                raise StepscopeError(f"face {face} {NO_KEYPOINTS}")

    @property
    def parts(self) -> tuple[Part, ...]:
        window, unit = self.controlnet_window, self.controlnet_window_unit
        return (*super().parts, Part("controlnet_", self.controlnet_scale, window, unit))

    @property
    def strength(self) -> float:
        """Of the image branch; of IdentityNet where that is off."""
        return self.scale or self.controlnet_scale

    def doubt(self, face: Face, facts: RunFacts) -> str:
        told, size = [], (facts.width, facts.height)
        if abs(np.linalg.norm(face.given[RAW]) - 1) < UNIT:
            told.append(
                "its embedding is of unit norm, and InstantID reads one as it comes from the encoder"
            )
        own = facts.control_image is None and self.controlnet_scale != 0
        keypoints = keypoints_in(face.found, size) if own else None
        if keypoints is not None and ((keypoints < 0) | (keypoints >= size)).any():
            told.append(
                f"it reaches out of {size[0]} x {size[1]} pixels once its photo is fitted there, and "
                "IdentityNet sees a part of it"
            )
        return "; ".join(told)

    def models(self) -> list[ModelPlace]:
        own = ModelPlace(
            "adapter",
            "path",
            self.path,
            lambda: published(self.path, download=False),
            files=weights,
        )
        return [own, encoder_place(self.encoder), pack_place(self.detector, self.detector_root)]

    def skeleton(self, facts: RunFacts) -> nn.Module:
        return bare_network(self.path)

    def on_skeleton(self, denoiser: nn.Module) -> AbstractContextManager[None]:
        check_network(bare_network(self.path), denoiser, self.path)
        root = published(self.path, settings=True)
        if (root / BRANCH).is_file():
            branch_kind(root, self.path, denoiser)
        return attentions_on_skeleton(denoiser)

    def load(self, facts: RunFacts) -> Loaded:
        root, size = published(self.path), (facts.width, facts.height)
        kind = branch_kind(root, self.path)
        network = load_network(root, self.path, facts.dtype)
        control = None
        if facts.control_image is not None:
            finder = self.finder(facts.device)
            control = load_control(facts.control_image, facts.control_image_kind, size, finder)
        return LoadedInstantID(network, self.path, root / BRANCH, kind, size, control)

    def reader(self, device: str) -> Reader:
        return FaceReader(self.finder(device), self.encoder, device, raw=True)

    def finder(self, device: str) -> Finder:
        return Finder(self.detector, self.detector_root, device)


@dataclass
class LoadedInstantID(Loaded):
    """InstantID on its device.

    size: (width, height) of a run. control: one image for all, and where its face was found; or None.
    """

    network: IdentityNet
    place: str
    branch: Path
    kind: Kind
    size: tuple[int, int]
    control: Control | None
    attentions: Attentions | None = None

    @property
    def components(self) -> Mapping[str, nn.Module]:
        return {"controlnet": self.network}

    @property
    def found(self) -> Mapping[str, Any]:
        return {} if self.control is None else self.control.found

    def attach(self, pipe: Any) -> None:
        check_network(self.network, pipe.unet, self.place)
        load_file(pipe, self.branch, self.kind)
        self.attentions = Attentions(denoiser_of(pipe))

    def arguments(self, adapter: InstantIDSettings, pipe: Any, steps: Steps) -> dict[str, Any]:
        unit = adapter.controlnet_window_unit
        window = fractions(adapter.controlnet_window, unit, steps.sigmas, steps.first)
        scale = adapter.controlnet_scale if window is not None else 0.0
        call: dict[str, Any] = {"controlnet_conditioning_scale": scale}
        if window is not None:
            call["control_guidance_start"], call["control_guidance_end"] = window
        return call

    @contextmanager
    def hooked(self, adapter: InstantIDSettings, pipe: Any, steps: Steps) -> Iterator[None]:
        assert self.attentions is not None
        inside = {step - steps.first for step in adapter.parts[0].steps(steps.sigmas)}
        with self.attentions.kept():
            pipe.set_ip_adapter_scale(adapter.scale)
            with each_its_own(pipe), windowed(pipe, self.attentions, inside):
                yield

    @torch.no_grad()
    def given(
        self, adapter: InstantIDSettings, pipe: Any, faces: Sequence[Face], branches: int
    ) -> dict[str, Any]:
        like = pipe.unet
        raw = torch.from_numpy(np.stack([face.given[RAW] for face in faces]))
        face = raw[:, None, None].to(like.device, like.dtype)  # (row, image, token, channel)
        face = torch.cat([torch.zeros_like(face), face]) if branches == 2 else face
        (tokens,) = like.encoder_hid_proj([face])
        self.network.identity = tokens[:, 0]
        seen = [self._drawing(adapter, one) for one in faces]
        return {"ip_adapter_image_embeds": [face], "image": seen}

    def _drawing(self, adapter: InstantIDSettings, face: Face) -> Image.Image:
        if self.control is not None:
            return self.control.image
        if not adapter.controlnet_scale:  # nobody looks at it
            return Image.new("RGB", self.size)
        keypoints = keypoints_in(face.found, self.size)
        if keypoints is None:
            raise StepscopeError(f"face {face.name} {NO_KEYPOINTS}")
        return drawn(keypoints, self.size)
