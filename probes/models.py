"""What a study loads once, and the one call that turns a batch of cells into images."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from stepscope.hooks.errors import StepscopeError
from stepscope.probes import backbones, grid, infusenet
from stepscope.probes.control import Control, load_control
from stepscope.probes.faces import Face, FaceReader, Finder, read_all
from stepscope.probes.found import doubts
from stepscope.probes.study import Study


@dataclass(frozen=True)
class Models:
    """A study's pipeline, adapter and faces, on their device.

    control: what the adapter's network sees, None without one. latents: given initial latents (sample,
    channel, y, x), None to draw them from the seeds.
    """

    study: Study
    pipe: Any
    network: infusenet.InfuseNet | None
    projection: nn.Module | None
    faces: Mapping[str, Face]
    control: Control | None
    latent_shape: tuple[int, int, int]
    latents: Float[np.ndarray, "n c y x"] | None

    @contextmanager
    def ready(self, first: int = 0) -> Iterator[dict[str, Any]]:
        """While it lasts `sample` may be called, with the arguments that it yields.

        first: the run's step at which the calls begin.
        """
        with ExitStack() as stack:
            if self.network is not None:
                stack.enter_context(infusenet.positive_only(self.pipe))
            yield call_arguments(self.study, self.pipe, self.control, first)

    def sample(
        self,
        batch: Sequence[grid.Cell],
        call: Mapping[str, Any],
        on_step: Callable[[], None] = lambda: None,
    ) -> Float[np.ndarray, "sample row column 3"] | Float[Tensor, "sample token packed"]:
        """Images in [0, 1] of a batch; `call` is what `ready` yielded. Runs `on_step` after steps.

        Packed latents where `call` names the output type `latent`.
        """
        if self.network is not None and self.projection is not None:
            embeddings = np.stack([self.faces[cell.face].embedding for cell in batch])
            self.network.identity = infusenet.identity_tokens(
                self.projection, torch.from_numpy(embeddings).to(self.pipe.device)
            )

        def after_step(
            pipe: Any, step: int, timestep: Any, values: dict[str, Any]
        ) -> dict[str, Any]:
            on_step()
            return {}

        latents = grid.pack(grid.noise(batch, self.latent_shape, self.latents))
        negative = [self.study.negative_prompt or ""] * len(batch)
        return self.pipe(
            prompt=[cell.prompt for cell in batch],
            negative_prompt=negative if self.study.branches == 2 else None,
            latents=latents.to(self.pipe.device, self.pipe.transformer.dtype),
            # Only the control image's VAE sampling draws from these.
            generator=[torch.Generator().manual_seed(cell.seed) for cell in batch],
            callback_on_step_end=after_step,
            **call,
        ).images


def load(
    study: Study, files: Mapping[str, Path], latent_shape: tuple[int, int, int], samples: int
) -> Models:
    """Load what the study needs, the smallest first.

    files: of the faces, by name; samples: cells in the grid.
    Raises StepscopeError for weights, faces, pictures and latents that are missing.
    """
    device = backbones.pick_device(study.device)
    given = study.initial_latents
    latents = None if given is None else grid.read_latents(given, latent_shape, samples)
    if given is None and (equal := grid.equal_noise(study.seeds)):
        told = f"warning: seeds {equal[0]} and {equal[1]} make the same noise: their low 32 bits are equal"
        print(told, file=sys.stderr)
    if study.adapter is None:
        pipe = backbones.load(study.backbone, device)
        return Models(study, pipe, None, None, {}, None, latent_shape, latents)
    a = study.adapter
    finder = Finder(a.detector, a.detector_root, device)
    control = load_control(study, finder)
    reader = FaceReader(finder, a.encoder, device)
    faces = read_all(reader, files)
    for line in doubts(study, faces):
        print(f"warning: {line}", file=sys.stderr)
    network, projection = infusenet.load_infusenet(a, getattr(torch, study.backbone.dtype))
    pipe = backbones.load(study.backbone, device, network)
    return Models(
        study, pipe, network, projection.to(device), faces, control, latent_shape, latents
    )


def call_arguments(
    study: Study, pipe: Any, control: Control | None, first: int = 0
) -> dict[str, Any]:
    """The pipeline's arguments that are the same for every batch. first: see `Models.ready`."""
    guided = pipe.transformer.config.guidance_embeds
    if guided and study.guidance is None:
        raise StepscopeError(f"{study.backbone.name} has a guidance embedding: name guidance=3.5")
    call: dict[str, Any] = {
        "num_inference_steps": study.steps,
        "guidance_scale": study.guidance if guided else 0.0,  # schnell has no embedding to read it
        "true_cfg_scale": study.true_cfg,
        "height": study.height,
        "width": study.width,
        "max_sequence_length": study.max_sequence_length,
        "output_type": "np",
    }
    if study.adapter is None or control is None:
        return call
    sigmas = backbones.schedule(pipe, study.steps, study.height, study.width)
    window = infusenet.window_fractions(study.adapter, sigmas, first)
    call["control_image"] = control.image
    call["controlnet_conditioning_scale"] = study.adapter.scale if window is not None else 0.0
    if window is not None:
        call["control_guidance_start"], call["control_guidance_end"] = window
    return call
