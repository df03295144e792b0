"""IP-Adapter (Ye et al. 2023, arXiv 2308.06721) on SD 1.5, SDXL and FLUX, by diffusers' own loader."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from torch import nn

from stepscope.hooks.clock import denoiser_of
from stepscope.hooks.errors import StepscopeError, nearest
from stepscope.probes.adapters.adapter import Adapter, ModelPlace, Reader, Reads, RunFacts
from stepscope.probes.adapters.block_scales import (
    PUBLISHED,
    Blocks,
    check_scale,
    leaves,
    times,
)
from stepscope.probes.adapters.face_models import clip_place, encoder_place, pack_place
from stepscope.probes.adapters.image_attention import (
    Attentions,
    attentions_on_skeleton,
    each_its_own,
    embeddings,
    pictures_of,
    windowed,
)
from stepscope.probes.adapters.image_prompt import FacePictureReader, PictureReader
from stepscope.probes.adapters.ip_adapter_file import (
    OWN_LORA,
    Kind,
    check_backbone,
    check_layers,
    load_file,
    own_lora,
    read_kind,
    there,
)
from stepscope.probes.adapters.loaded import Loaded, Steps
from stepscope.probes.adapters.lora_layers import gated, held, load_into
from stepscope.probes.faces import FaceReader, Finder, is_embedding
from stepscope.probes.weights import explained, file


@dataclass(frozen=True)
class IPAdapterSettings(Adapter):
    """IP-Adapter: plain, plus, full-face or FaceID, which its file says.

    path: the file of weights, on this machine or `OWNER/NAME/FOLDER/FILE` of the hub. encoder: CLIP's image
    encoder, a folder or `OWNER/NAME/FOLDER`; of FaceID a recogniser, an ArcFace-form `.onnx`. scale: a
    number, or one for each block as diffusers' set_ip_adapter_scale takes it, 0 where it says nothing.
    blocks: of SDXL, those that carry style or layout alone, as published. detector, detector_root: of
    FaceID, an insightface pack; published with buffalo_l and its recogniser. Of a FaceID Plus, clip: CLIP's
    image encoder, and shortcut: true for its version 2 (the file does not say which it is); None for any
    other.
    """

    scale: float | dict[str, Any] = 1.0
    blocks: Blocks = "all"
    encoder: str = "h94/IP-Adapter/models/image_encoder"
    detector: str = "buffalo_l"
    detector_root: str = "~/.insightface"
    face_id: bool = False
    clip: str = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
    shortcut: bool | None = None
    kind: Literal["ip_adapter"] = "ip_adapter"

    KIND: ClassVar[str] = "ip_adapter"
    FAMILIES: ClassVar[tuple[str, ...]] = ("sd15", "sdxl", "flux")
    FILLS: ClassVar[tuple[str, ...]] = ("an image prompt",)
    PLACES: ClassVar[Mapping[str, str]] = {
        "path": "adapter",
        "encoder": "encoder",
        "clip": "clip",
        "detector": "detector",
        "detector_root": "detector",
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.blocks not in get_args(Blocks):
            raise StepscopeError(
                f"adapter.blocks={self.blocks!r}; {nearest(self.blocks, get_args(Blocks))}"
            )
        if not all(isinstance(one, int | float) and isfinite(one) for one in leaves(self.scale)):
            raise StepscopeError(
                f"adapter.scale={self.scale!r}: finite numbers are wanted, such as 0.6 or "
                "{up: {block_0: [0.0,1.0,0.0]}}"
            )
        if self.blocks != "all" and isinstance(self.scale, Mapping):
            raise StepscopeError(
                "adapter.scale names blocks, and so does adapter.blocks: name them once"
            )

    def check(self, facts: RunFacts, faces: Sequence[str]) -> None:
        super().check(facts, faces)
        photos = [face for face in faces if not is_embedding(face)]
        if self.face_id and photos and not self.encoder.endswith((".onnx", ".pth")):
            raise StepscopeError(
                f"adapter.encoder={self.encoder!r} recognises no faces, which a FaceID reads: name a "
                "recogniser, adapter.encoder=~/.insightface/models/buffalo_l/w600k_r50.onnx"
            )

    @property
    def reads(self) -> Reads:
        return "face" if self.face_id else "picture"

    @property
    def from_embedding(self) -> bool:
        return self.face_id and self.shortcut is None

    @property
    def is_on(self) -> bool:
        return any(value != 0 for value in leaves(self.scale))

    @property
    def adds_as(self) -> tuple[str, ...]:
        return (*super().adds_as, f"lora:{OWN_LORA}")

    @property
    def scales(self) -> float | dict[str, Any]:
        """As diffusers' set_ip_adapter_scale takes them."""
        if self.blocks == "all" or isinstance(self.scale, Mapping):
            return self.scale
        return times(PUBLISHED[self.blocks], self.scale)

    def models(self) -> list[ModelPlace]:
        own = ModelPlace(
            "adapter",
            "path",
            self.path,
            lambda: file(self.path, "adapter", download=False),
            files=one,
        )
        if not self.face_id:
            return [own, clip_place("encoder", self.encoder)]
        clip = [] if self.shortcut is None else [clip_place("clip", self.clip)]
        pack = pack_place(self.detector, self.detector_root)
        return [own, encoder_place(self.encoder), *clip, pack]

    @contextmanager
    def on_skeleton(self, denoiser: nn.Module) -> Iterator[None]:
        path = there(self.path)
        if path is not None:
            check_backbone(self._file()[1], denoiser, self.path)
            check_layers(path, denoiser, self.path)
        check_scale(self.scale, denoiser)
        if self.face_id and path is not None and (lora := own_lora(denoiser, path)):
            with explained(self.path, "adapter"):
                load_into(denoiser, lora, OWN_LORA)
        with attentions_on_skeleton(denoiser):
            yield

    def load(self, facts: RunFacts) -> Loaded:
        if self.blocks != "all" and facts.family != "sdxl":
            raise StepscopeError(
                f"adapter.blocks={self.blocks} are blocks of SDXL, and the backbone is of {facts.family}"
            )
        return LoadedIPAdapter(*self._file(), shortcut=bool(self.shortcut))

    def reader(self, device: str) -> Reader:
        if self.face_id and self.shortcut is not None:
            picture = PictureReader(self.clip, device, lambda: self._file()[1], key="adapter.clip")
            return FacePictureReader(self._faces(device), self.encoder, device, picture)
        if self.face_id:
            return FaceReader(self._faces(device), self.encoder, device)
        return PictureReader(self.encoder, device, lambda: self._file()[1])

    def finder(self, device: str) -> Finder | None:
        return self._faces(device) if self.face_id else None

    def _file(self) -> tuple[Path, Kind]:
        """The file and what it holds. Raises WeightsError, StepscopeError for another kind than named."""
        path = file(self.path, "adapter")
        kind = read_kind(path, self.path)
        if kind.face_id != self.face_id:
            what = "a FaceID adapter" if kind.face_id else "no FaceID adapter"
            raise StepscopeError(
                f"adapter.path={self.path!r} is {what}: adapter.face_id={str(kind.face_id).lower()}"
            )
        if kind.plus_face and self.shortcut is None:
            raise StepscopeError(
                f"adapter.path={self.path!r} is a FaceID Plus: adapter.shortcut=true if it is version 2 "
                "(plusv2), else adapter.shortcut=false"
            )
        if self.shortcut is not None and not kind.plus_face:
            raise StepscopeError(
                f"adapter.path={self.path!r} is no FaceID Plus: adapter.shortcut=null"
            )
        return path, kind

    def _faces(self, device: str) -> Finder:
        return Finder(self.detector, self.detector_root, device)


@dataclass
class LoadedIPAdapter(Loaded):
    """An IP-Adapter's file, and once it is attached the attentions that hold it, and its LoRA's layers.

    A FaceID's LoRA runs where its attentions do, at its published weight of 1.
    """

    path: Path
    kind: Kind
    shortcut: bool = False
    attentions: Attentions | None = None
    layers: Sequence[Any] = ()

    def attach(self, pipe: Any) -> None:
        load_file(pipe, self.path, self.kind)
        self.attentions = Attentions(denoiser_of(pipe))
        self.layers = held(denoiser_of(pipe), OWN_LORA)

    @contextmanager
    def hooked(self, adapter: IPAdapterSettings, pipe: Any, steps: Steps) -> Iterator[None]:
        assert self.attentions is not None
        inside = {step - steps.first for step in adapter.steps_on(steps.sigmas)}
        weight = 1.0 if adapter.is_on else 0.0
        lora = gated(pipe, OWN_LORA, self.layers, scale=weight, inside=inside)
        with self.attentions.kept(), each_its_own(pipe), lora:
            pipe.set_ip_adapter_scale(adapter.scales)
            try:
                with windowed(pipe, self.attentions, inside):
                    yield
            finally:
                if self.kind.plus_face:
                    plus_projection(pipe).clip_embeds = None

    def given(
        self, adapter: IPAdapterSettings, pipe: Any, faces: Sequence[Any], branches: int
    ) -> dict[str, Any]:
        if self.kind.plus_face:
            projection = plus_projection(pipe)
            projection.clip_embeds = pictures_of(pipe, faces, branches, self.kind)
            projection.shortcut = self.shortcut
        return embeddings(pipe, faces, branches, self.kind)


def plus_projection(pipe: Any) -> Any:
    """The projection of a FaceID Plus, which is given CLIP's hidden states beside its input."""
    denoiser: Any = denoiser_of(pipe)
    (projection,) = denoiser.encoder_hid_proj.image_projection_layers
    return projection


def one(path: Path) -> list[Path]:
    return [path]
