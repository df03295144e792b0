"""InstantID on SDXL: an image branch in the cross-attentions, and IdentityNet, a ControlNet of the face.

Follows the published pipeline (github.com/instantX-research/InstantID at 2145b67,
pipeline_stable_diffusion_xl_instantid.py); Wang et al. 2024, arXiv 2401.07519. The face's embedding is not
normalised, and nobody's is zeros. A sample's control image is the drawing of its own photo's keypoints,
where the photo is fitted into the picture, unless `control_image` names one for all.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from PIL import Image
from torch import nn

from stepscope.hooks.clock import denoiser_of
from stepscope.hooks.errors import StepscopeError
from stepscope.probes.adapters.adapter import (
    Adapter,
    Loaded,
    ModelPlace,
    Reader,
    Reads,
    RunFacts,
    Steps,
)
from stepscope.probes.adapters.face_models import encoder_place, pack_place
from stepscope.probes.adapters.image_attention import (
    Attentions,
    attentions_on_skeleton,
    each_its_own,
    windowed,
)
from stepscope.probes.adapters.instantid_network import IdentityNet
from stepscope.probes.adapters.ip_adapter_file import Kind, load_file, read_kind
from stepscope.probes.adapters.window import (
    Window,
    WindowUnit,
    checked_window,
    fractions,
    steps_inside,
)
from stepscope.probes.control import drawn, keypoints_in, load_control
from stepscope.probes.faces import RAW, Face, FaceReader, Finder, is_embedding
from stepscope.probes.weights import WeightsError, check_complete, explained, folder, meta

NETWORK, BRANCH = "ControlNetModel", "ip-adapter.bin"
"""What lies in the published folder."""
NO_KEYPOINTS = (
    "is an embedding, which has no keypoints for IdentityNet: name control_image=photo.jpg, or their "
    "drawing with control_image_kind=keypoints"
)


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
    PLACES: ClassVar[Mapping[str, str]] = {
        "path": "adapter",
        "encoder": "encoder",
        "detector": "detector",
        "detector_root": "detector",
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        key, unit = "adapter.controlnet_window", self.controlnet_window_unit
        window = checked_window(key, self.controlnet_window, unit)
        object.__setattr__(self, "controlnet_window", window)

    def check(self, facts: RunFacts, faces: Sequence[str]) -> None:
        super().check(facts, faces)
        for face in faces:
            if facts.control_image is None and self.controlnet_scale and is_embedding(face):
                raise StepscopeError(f"face {face} {NO_KEYPOINTS}")

    @property
    def is_on(self) -> bool:
        return self.scale != 0 or self.controlnet_scale != 0

    def off(self) -> Adapter:
        return replace(self, scale=0.0, controlnet_scale=0.0)

    def always_on(self) -> Adapter:
        both: Window = (0.0, 1.0)
        return replace(
            self,
            window=both,
            window_unit="fraction",
            controlnet_window=both,
            controlnet_window_unit="fraction",
        )

    def steps_on(self, sigmas: Sequence[float]) -> list[int]:
        return sorted({*self.branch_on(sigmas), *self.network_on(sigmas)})

    def branch_on(self, sigmas: Sequence[float]) -> list[int]:
        """The steps in which the image branch is active."""
        return steps_inside(self.window, self.window_unit, sigmas) if self.scale else []

    def network_on(self, sigmas: Sequence[float]) -> list[int]:
        """The steps in which IdentityNet is."""
        unit = self.controlnet_window_unit
        return steps_inside(self.controlnet_window, unit, sigmas) if self.controlnet_scale else []

    def models(self) -> list[ModelPlace]:
        own = ModelPlace("adapter", "path", self.path, lambda: self._folder(download=False))
        return [own, encoder_place(self.encoder), pack_place(self.detector, self.detector_root)]

    def skeleton(self, facts: RunFacts) -> nn.Module:
        with explained(self.path, "adapter"):
            return meta(IdentityNet, self._folder(settings=True) / NETWORK)

    def on_skeleton(self, denoiser: nn.Module) -> AbstractContextManager[None]:
        return attentions_on_skeleton(denoiser)

    def load(self, facts: RunFacts) -> Loaded:
        root = self._folder()
        path = root / BRANCH
        kind = read_kind(path, self.path, facts.family)
        with explained(self.path, "adapter"):
            network = IdentityNet.from_pretrained(root / NETWORK, torch_dtype=facts.dtype)
            check_complete(network)
        size = facts.width, facts.height
        control = None
        found: Mapping[str, Any] = {}
        if facts.control_image is not None:
            finder = self.finder(facts.device)
            made = load_control(facts.control_image, facts.control_image_kind, size, finder)
            control, found = made.image, made.found
        return LoadedInstantID(network, path, kind, size, control, found)

    def reader(self, device: str) -> Reader:
        return FaceReader(self.finder(device), self.encoder, device, raw=True)

    def finder(self, device: str) -> Finder:
        return Finder(self.detector, self.detector_root, device)

    def _folder(self, *, download: bool = True, settings: bool = False) -> Path:
        wanted = [f"{NETWORK}/*.json"] if settings else [f"{NETWORK}/*", BRANCH]
        found = folder(self.path, "adapter", wanted, download=download)
        lost = [NETWORK] if not (found / NETWORK).is_dir() else []
        lost += [BRANCH] if not settings and not (found / BRANCH).is_file() else []
        if lost:
            raise WeightsError(f"adapter {self.path!r} has no {lost[0]}")
        return found


@dataclass
class LoadedInstantID(Loaded):
    """InstantID on its device.

    size: (width, height) of a run. control: one image for all, or None; face: where its face was found.
    """

    network: IdentityNet
    path: Path
    kind: Kind
    size: tuple[int, int]
    control: Image.Image | None
    face: Mapping[str, Any]
    attentions: Attentions | None = None

    @property
    def components(self) -> Mapping[str, nn.Module]:
        return {"controlnet": self.network}

    @property
    def found(self) -> Mapping[str, Any]:
        return self.face

    def attach(self, pipe: Any) -> None:
        network: Any = self.network
        width, text = network.config.cross_attention_dim, pipe.unet.config.cross_attention_dim
        if width != text:
            raise WeightsError(
                f"adapter {str(self.path.parent)!r}: IdentityNet reads tokens of {width} channels, and "
                f"the backbone's text has {text}: it is another backbone's"
            )
        load_file(pipe, self.path, self.kind)
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
        inside = {step - steps.first for step in adapter.branch_on(steps.sigmas)}
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
        return {"ip_adapter_image_embeds": [face], "image": [self._drawing(one) for one in faces]}

    def _drawing(self, face: Face) -> Image.Image:
        if self.control is not None:
            return self.control
        keypoints = keypoints_in(face.found, self.size)
        if keypoints is None:
            raise StepscopeError(f"face {face.name} {NO_KEYPOINTS}")
        return drawn(keypoints, self.size)
