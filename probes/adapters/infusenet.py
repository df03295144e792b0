"""InfuseNet, the identity adapter of InfiniteYou, behind the protocol of adapters."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import nn

from stepscope.hooks.errors import StepscopeError
from stepscope.probes.adapters.adapter import Adapter, ModelPlace, Reader, Reads, RunFacts
from stepscope.probes.adapters.face_models import encoder_place, pack_place
from stepscope.probes.adapters.infusenet_network import (
    PROJECTION,
    InfuseNet,
    adapter_folder,
    identity_tokens,
    load_infusenet,
    positive_only,
)
from stepscope.probes.adapters.loaded import Loaded, Steps
from stepscope.probes.adapters.window import fractions
from stepscope.probes.control import Control, load_control
from stepscope.probes.faces import UNIT, Face, FaceReader, Finder
from stepscope.probes.weights import WeightsError, explained, meta, weight_files


@dataclass(frozen=True)
class InfuseNetSettings(Adapter):
    """InfuseNet, and what finds and embeds the face that it reads.

    path: hub id or local folder in the published layout; variant: subfolder of the published
        repository (`aes_stage2`, `sim_stage1`), used if `path` does not hold `InfuseNetModel/` itself.
    guidance: InfuseNet's own guidance embedding (published: 1.0).
    heads: attention heads of the projection (published: 20).
    encoder: the conditioning recogniser, IR-SE50's `.pth` or an ArcFace-form `.onnx` file.
    detector: an insightface pack, by name under `detector_root` or by folder.
    """

    scale: float = 1.0
    encoder: str = "models/recognition_arcface_ir_se50.pth"
    detector: str = "antelopev2"
    detector_root: str = "~/.insightface"
    variant: str = "aes_stage2"
    guidance: float = 1.0
    heads: int = 20
    kind: Literal["infusenet"] = "infusenet"

    KIND: ClassVar[str] = "infusenet"
    FAMILIES: ClassVar[tuple[str, ...]] = ("flux",)
    READS: ClassVar[Reads | None] = "face"
    IN_NEGATIVE: ClassVar[bool] = False
    FILLS: ClassVar[tuple[str, ...]] = ("a ControlNet",)
    PLACES: ClassVar[Mapping[str, str]] = {
        "path": "adapter",
        "encoder": "encoder",
        "detector": "detector",
        "detector_root": "detector",
    }

    @property
    def from_embedding(self) -> bool:
        return True

    def models(self) -> list[ModelPlace]:
        return [
            ModelPlace(
                "adapter",
                "path",
                self.path,
                lambda: adapter_folder(self.path, self.variant, download=False),
                files=_files,
                words={"variant": self.variant},
            ),
            encoder_place(self.encoder),
            pack_place(self.detector, self.detector_root),
        ]

    def skeleton(self, facts: RunFacts) -> nn.Module:
        with explained(self.path, "adapter"):
            folder = adapter_folder(self.path, self.variant, settings_only=True)
            return meta(InfuseNet, folder / "InfuseNetModel")

    @contextmanager
    def on_skeleton(self, denoiser: nn.Module) -> Iterator[None]:
        with explained(self.path, "adapter"):
            folder = adapter_folder(self.path, self.variant, settings_only=True)
            own: Any = InfuseNet.load_config(folder / "InfuseNetModel")
        check_fits(own, denoiser, self.path)
        yield

    def load(self, facts: RunFacts) -> Loaded:
        size = facts.width, facts.height
        finder = self.finder(facts.device)
        control = load_control(facts.control_image, facts.control_image_kind, size, finder)
        network, projection = load_infusenet(self, facts.dtype)
        return LoadedInfuseNet(network, projection.to(facts.device), control)

    def reader(self, device: str) -> Reader:
        return FaceReader(self.finder(device), self.encoder, device)

    def finder(self, device: str) -> Finder:
        return Finder(self.detector, self.detector_root, device)


def check_fits(own: Mapping[str, Any], denoiser: Any, place: str) -> None:
    """Raise WeightsError for an InfuseNet whose residuals, or inputs, are of another width than FLUX's."""

    def sizes(config: Any) -> dict[str, int]:
        return {
            "latent channels": config["in_channels"],
            "channels of a block": config["num_attention_heads"] * config["attention_head_dim"],
            "channels of the pooled text": config["pooled_projection_dim"],
        }

    for what, wanted in sizes(denoiser.config).items():
        if (found := sizes(own)[what]) != wanted:
            raise WeightsError(
                f"adapter {place!r} has {found} {what}, and the backbone {wanted}: it is another "
                "backbone's adapter"
            )


def _files(folder: Path) -> Sequence[Path]:
    network = list(weight_files(folder / "InfuseNetModel").values())
    return [*network, *([folder / PROJECTION] if (folder / PROJECTION).exists() else [])]


@dataclass
class LoadedInfuseNet(Loaded):
    """InfuseNet on its device. control: the image that it sees."""

    network: InfuseNet
    projection: nn.Module
    control: Control

    @property
    def components(self) -> Mapping[str, nn.Module]:
        return {"controlnet": self.network}

    @property
    def found(self) -> Mapping[str, Any]:
        return self.control.found

    def arguments(self, adapter: InfuseNetSettings, pipe: Any, steps: Steps) -> dict[str, Any]:
        window = fractions(adapter.window, adapter.window_unit, steps.sigmas, steps.first)
        call: dict[str, Any] = {
            "control_image": self.control.image,
            "controlnet_conditioning_scale": adapter.scale if window is not None else 0.0,
        }
        if window is not None:
            call["control_guidance_start"], call["control_guidance_end"] = window
        return call

    def hooked(
        self, adapter: InfuseNetSettings, pipe: Any, steps: Steps
    ) -> AbstractContextManager[None]:
        return positive_only(pipe)

    def given(
        self, adapter: InfuseNetSettings, pipe: Any, faces: Sequence[Face], branches: int
    ) -> dict[str, Any]:
        if not all(np.isfinite(face.embedding).all() for face in faces):
            raise StepscopeError("InfuseNet reads faces, and one of the batch has no embedding")
        own = [face.given.get(UNIT, face.embedding) for face in faces]
        embeddings = torch.from_numpy(np.stack(own))
        self.network.identity = identity_tokens(self.projection, embeddings.to(pipe.device))
        return {}
