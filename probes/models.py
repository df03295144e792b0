"""What a study loads once, and the one call that turns a batch of cells into images."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from stepscope.hooks.clock import denoiser_of
from stepscope.hooks.errors import StepscopeError
from stepscope.probes import grid
from stepscope.probes.adapters import Loaded, Steps
from stepscope.probes.backbones.late_guidance import guided_from
from stepscope.probes.devices import keep_freed_memory, pick_device
from stepscope.probes.faces import Face, joined, read_all
from stepscope.probes.found import doubts
from stepscope.probes.study import Study


@dataclass(frozen=True)
class Models:
    """A study's pipeline, adapters and faces, on their device.

    adapters: by the key of their settings. latents: given initial latents (sample, channel, y, x), None to
    draw them from the seeds.
    """

    study: Study
    pipe: Any
    adapters: Mapping[str, Loaded]
    faces: Mapping[str, Face]
    latent_shape: tuple[int, int, int]
    latents: Float[np.ndarray, "n c y x"] | None

    @property
    def found(self) -> dict[str, Any]:
        """Where the face of the control image was found; {} without one."""
        return {k: v for one in self.adapters.values() for k, v in one.found.items()}

    def steps(self, first: int = 0) -> Steps:
        """The steps of a call that begins at the run's step `first`."""
        return Steps(self.study.family.sigmas(self.study, self.pipe).tolist(), first)

    def arguments(self, first: int = 0) -> dict[str, Any]:
        """The pipeline's arguments that are the same for every batch. first: see `ready`."""
        call = self.study.family.arguments(self.study, self.pipe)
        steps = self.steps(first)
        for key, settings in self.study.adapters.items():
            call |= self.adapters[key].arguments(settings, self.pipe, steps)
        return call

    @contextmanager
    def ready(self, first: int = 0) -> Iterator[dict[str, Any]]:
        """While it lasts `sample` may be called, with the arguments that it yields.

        first: the run's step at which the calls begin.
        """
        steps, start = self.steps(first), self.study.true_cfg_start
        with ExitStack() as stack:
            if start and self.study.branches == 2:
                stack.enter_context(guided_from(self.pipe, start, first=first))
            for key, settings in self.study.adapters.items():
                stack.enter_context(self.adapters[key].hooked(settings, self.pipe, steps))
            yield self.arguments(first)

    def sample(
        self,
        batch: Sequence[grid.Cell],
        call: Mapping[str, Any],
        on_step: Callable[[], None] = lambda: None,
    ) -> Float[np.ndarray, "sample row column 3"] | Float[Tensor, "sample ..."]:
        """Images in [0, 1] of a batch; `call` is what `ready` yielded. Runs `on_step` after steps.

        Latents as the scheduler steps them where `call` names the output type `latent`.
        """
        study, given = self.study, {}
        denoiser: Any = denoiser_of(self.pipe)
        for key, settings in study.adapters.items():
            faces = [self.faces[cell.face] for cell in batch] if settings.reads else []
            given |= self.adapters[key].given(settings, self.pipe, faces, study.branches)

        def after_step(
            pipe: Any, step: int, timestep: Any, values: dict[str, Any]
        ) -> dict[str, Any]:
            on_step()
            return {}

        latents = study.family.packed(grid.noise(batch, self.latent_shape, self.latents))
        return self.pipe(
            prompt=[cell.prompt for cell in batch],
            negative_prompt=study.family.negative(study, len(batch)),
            latents=latents.to(self.pipe.device, denoiser.dtype),
            # Only what a scheduler or the control image's VAE draws is drawn from these.
            generator=[torch.Generator().manual_seed(cell.seed) for cell in batch],
            callback_on_step_end=after_step,
            **call,
            **given,
        ).images


def load(
    study: Study, files: Mapping[str, Path], latent_shape: tuple[int, int, int], samples: int
) -> Models:
    """Load what the study needs, the smallest first.

    files: of the faces, by name; samples: cells in the grid.
    Raises StepscopeError for weights, faces, pictures and latents that are missing.
    """
    device = pick_device(study.device)
    if device == "cpu":
        keep_freed_memory()
    given = study.initial_latents
    latents = None if given is None else grid.read_latents(given, latent_shape, samples)
    if given is None and (equal := grid.equal_noise(study.seeds)):
        told = f"warning: seeds {equal[0]} and {equal[1]} make the same noise: their low 32 bits are equal"
        print(told, file=sys.stderr)
    faces = faces_of(study, files, device)
    for line in doubts(study, faces):
        print(f"warning: {line}", file=sys.stderr)
    loaded = {key: one.load(study.facts(device)) for key, one in study.adapters.items()}
    components: dict[str, Any] = {}
    for key, one in loaded.items():
        if twice := components.keys() & one.components.keys():
            raise StepscopeError(f"{key}: another adapter brings a {min(twice)} already")
        components |= one.components
    pipe = study.family.load(study.backbone, device, components)
    for one in loaded.values():
        one.attach(pipe)
    return Models(study, pipe, loaded, faces, latent_shape, latents)


def faces_of(study: Study, files: Mapping[str, Path], device: str) -> dict[str, Face]:
    """Every face by its name, with what each adapter reads of it. Raises FaceError and WeightsError."""
    found: dict[str, Face] = {}
    for one in study.adapters.values():
        reader = one.reader(device)
        if reader is not None:
            read = read_all(reader, files)
            found = {name: joined(found.get(name), face) for name, face in read.items()}
    return found


def switched_off(loaded: Models) -> Models:
    """The same models with the adapter that is studied switched off."""
    adapter = loaded.study.adapter
    assert adapter is not None
    return replace(loaded, study=replace(loaded.study, adapter=adapter.off()))
