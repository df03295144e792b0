"""PuLID for FLUX (Guo et al. 2024, arXiv 2404.16022), injected by hooks: no transformer of its own.

Follows the published code, v0.9.1 (github.com/ToTheBeginning/PuLID at 1aa2fc7). Its `start_step` k is
`window=[k,N] window_unit=step`; its true CFG begins with the first step, as diffusers' own does
(`timestep_to_start_cfg` is 0).
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from stepscope.probes.adapters.adapter import (
    Adapter,
    Loaded,
    ModelPlace,
    Reader,
    Reads,
    RunFacts,
    Steps,
)
from stepscope.probes.adapters.pulid_faces import CLIP, HIDDEN, PulidReader
from stepscope.probes.adapters.pulid_injection import declared, injected
from stepscope.probes.adapters.pulid_network import Pulid, check_fits, load_pulid, sizes_of
from stepscope.probes.faces import RAW, Face
from stepscope.probes.weights import WeightsError, file


@dataclass(frozen=True)
class PulidSettings(Adapter):
    """PuLID, and what it reads of a face.

    path: the file of weights, on this machine or `OWNER/NAME/FILE` of the hub. scale: the published
    `id_weight`. Files of `faces` are `.npz` with `id_cond` and `id_vit_hidden`, as the published
    `get_id_embedding` makes them.
    """

    scale: float = 1.0
    kind: Literal["pulid"] = "pulid"

    KIND: ClassVar[str] = "pulid"
    FAMILIES: ClassVar[tuple[str, ...]] = ("flux",)
    READS: ClassVar[Reads | None] = "face"

    def models(self) -> list[ModelPlace]:
        def find() -> Path:
            return file(self.path, "adapter", download=False)

        return [ModelPlace("adapter", "path", self.path, find, files=lambda path: [path])]

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
        return PulidReader()


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
        face = np.stack([np.concatenate([one.given[RAW], one.given[CLIP]]) for one in faces])
        hidden = np.stack([one.given[HIDDEN] for one in faces])
        both = [torch.from_numpy(part).to(pipe.device) for part in (face, hidden)]
        self.network.identity = self.network.tokens(*both)
        if branches == 2:
            nobody = [torch.zeros_like(part[:1]) for part in both]
            self.network.unconditional = self.network.tokens(*nobody)
        return {}
