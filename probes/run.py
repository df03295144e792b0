"""A probe run, top to bottom: faces, plan, models, and the grid under hooks."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from hooks.errors import RunError, StepscopeError
from hooks.layout import Layout
from hooks.recorder import record
from hooks.store import Run
from probes import backbones, grid, infusenet, plan, provenance
from probes.faces import Face, FaceReader, face_files
from probes.progress import progress
from probes.study import Study, prompts_of

Say = Callable[[str], None]


def run(study: Study, say: Say = print) -> Path:
    """Record the study's grid into its run and return the run's path.

    A finished run is left as it is; an unfinished one is continued; `study.dry` stops after the
    plan. Raises StepscopeError for whatever the user can mend.
    """
    files = face_files(study.faces)
    cells = grid.cells(list(files), prompts_of(study), study.seeds)
    out = Path(study.out) if study.out is not None else provenance.default_out(study)
    existing = open_existing(study, out, len(cells))
    done = existing.done if existing is not None else np.zeros(len(cells), bool)
    left = int((~done).sum())
    if not left:
        say(f"{out} is finished: all {len(cells)} samples are done, nothing to do")
        return out
    found = plan.outline(study)
    say(plan.describe(study, found, len(cells), left, out))
    plan.refuse_too_large(found, left, out)
    if study.dry:
        return out

    device = backbones.pick_device(study.device)
    adapter = load_adapter(study, device)
    pipe = backbones.load(study.backbone, device, adapter[0] if adapter is not None else None)
    faces = read_faces(study, files, device)
    if existing is None:
        labels = [
            {"face": c.face, "prompt": c.prompt, "seed": c.seed, "batch_size": len(batch)}
            for batch in grid.batches(cells, study.batch_size, np.zeros(len(cells), bool))
            for c in batch
        ]
        about = provenance.attributes(study, pipe, study.capture, faces.values(), files)
        existing = Run.create(out, found, labels, about)
    denoise(study, pipe, adapter, faces, cells, found, existing)
    say(f"{out}: {len(cells)} samples done")
    return out


def open_existing(study: Study, out: Path, samples: int) -> Run | None:
    """The run at `out`, if there is one. Raises RunError if it was made by another configuration."""
    if not out.exists():
        return None
    run = Run.open(out)
    old = run.attributes.get("configuration")
    if old is None:
        raise RunError(f"{out} was not made by `python -m probes`: choose another out=")
    changed = provenance.differences(old, provenance.configuration(study))
    if changed or len(run.done) != samples:
        raise RunError(
            f"{out} was made with another configuration: {'; '.join(changed) or 'other samples'}. "
            "Choose another out=, or remove it"
        )
    return run


def load_adapter(study: Study, device: str) -> tuple[infusenet.InfuseNet, torch.nn.Module] | None:
    """InfuseNet and its projection on the device, or None if the study has no adapter."""
    if study.adapter is None:
        return None
    dtype = getattr(torch, study.backbone.dtype)
    network, projection = infusenet.load_infusenet(study.adapter, dtype)
    return network, projection.to(device)


def read_faces(study: Study, files: Mapping[str, Path], device: str) -> dict[str, Face]:
    """Every face of the study, found and embedded once; none without an adapter."""
    if study.adapter is None:
        return {}
    a = study.adapter
    reader = FaceReader(a.detector, a.detector_root, a.encoder, device)
    return {name: reader.read(name, path) for name, path in files.items()}


def denoise(
    study: Study,
    pipe: Any,
    adapter: tuple[infusenet.InfuseNet, torch.nn.Module] | None,
    faces: Mapping[str, Face],
    cells: Sequence[grid.Cell],
    found: Layout,
    out: Run,
) -> None:
    """Run every batch that is not done, under hooks."""
    done = out.done
    work = list(grid.batches(cells, study.batch_size, done))
    shape = plan.latent_shape(found)
    given = study.initial_latents
    initial = None if given is None else grid.read_latents(given, shape, len(cells))
    call = call_arguments(study, pipe)
    with ExitStack() as stack:
        if adapter is not None:
            stack.enter_context(infusenet.positive_only(pipe))
        recording = stack.enter_context(record(pipe, out, study.capture))
        advance = stack.enter_context(progress(len(work) * study.steps))
        for batch in work:
            asked = [faces.get(c.face) for c in batch]
            if adapter is not None:
                embeddings = torch.from_numpy(
                    np.stack([f.embedding for f in asked if f is not None])
                )
                adapter[0].identity = infusenet.identity_tokens(
                    adapter[1], embeddings.to(pipe.device)
                )
            where = f"sample {batch[0].index + 1} of {len(cells)}"
            recording.place(
                [None if done[c.index] else c.index for c in batch],
                face_seconds=face_seconds(asked),
                extras=[extras(face) for face in asked],
            )

            def on_step(
                pipe: Any, step: int, timestep: Any, values: dict[str, Any]
            ) -> dict[str, Any]:
                advance(where)  # noqa: B023
                return {}

            latents = grid.noise(batch, shape, initial)
            pipe(
                prompt=[c.prompt for c in batch],
                negative_prompt=[study.negative_prompt or ""] * len(batch)
                if study.true_cfg > 1
                else None,
                latents=grid.pack(latents).to(pipe.device, pipe.transformer.dtype),
                generator=[torch.Generator().manual_seed(c.seed) for c in batch],
                callback_on_step_end=on_step,
                **call,
            )


def extras(face: Face | None) -> dict[str, np.ndarray]:
    """What probes add to a sample: see `plan.EXTRAS`."""
    embedding, crop = (face.embedding, face.crop) if face is not None else (None, None)
    return {
        "face_embedding": np.full(512, np.nan, np.float32) if embedding is None else embedding,
        "face_crop": np.zeros((112, 112, 3), np.uint8) if crop is None else crop,
    }


def face_seconds(faces: Sequence[Face | None]) -> float:
    """Seconds that finding and embedding these faces took, each counted once; NaN without faces."""
    seconds = {face.name: face.seconds for face in faces if face is not None}
    return sum(seconds.values()) if seconds else float("nan")


def call_arguments(study: Study, pipe: Any) -> dict[str, Any]:
    """The pipeline's arguments that are the same for every batch."""
    guided = pipe.transformer.config.guidance_embeds
    if guided and study.guidance is None:
        raise StepscopeError(f"{study.backbone.name} has a guidance embedding: name guidance=3.5")
    call: dict[str, Any] = {
        "num_inference_steps": study.steps,
        "guidance_scale": study.guidance if guided else 0.0,
        "true_cfg_scale": study.true_cfg,
        "height": study.height,
        "width": study.width,
        "max_sequence_length": study.max_sequence_length,
        "output_type": "np",
    }
    if study.adapter is None:
        return call
    sigmas = backbones.schedule(pipe, study.steps, study.height, study.width)
    window = infusenet.window_fractions(study.adapter, sigmas)
    call |= {
        "control_image": control_image(study),
        "controlnet_conditioning_scale": study.adapter.scale if window is not None else 0.0,
    }
    if window is not None:
        call |= {"control_guidance_start": window[0], "control_guidance_end": window[1]}
    return call


def control_image(study: Study) -> Image.Image:
    """The control image, a black one if none is named, as InfiniteYou does. Raises StepscopeError."""
    if study.control_image is None:
        return Image.new("RGB", (study.width, study.height))
    try:
        return Image.open(study.control_image).convert("RGB")
    except (FileNotFoundError, UnidentifiedImageError) as error:
        raise StepscopeError(f"control_image {study.control_image!r} cannot be read") from error
