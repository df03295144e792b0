"""The adapters that adapters_quality.py measures: references never trained on, judges, painters."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from stepscope.pocket import album, folders, networks, shipped
from stepscope.pocket.flow import Words, noise
from stepscope.pocket.on_dev import painting as dev_painting
from stepscope.pocket.on_dev import person
from stepscope.pocket.on_dev.painting import Painter
from stepscope.pocket.process import Options, device
from stepscope.pocket.references import photos
from stepscope.pocket.sampling import DEV_STEPS, SCHNELL_STEPS
from stepscope.pocket.shipped import from_onnx
from stepscope.pocket.unet import few_steps, gallery, image_encoder, instantid, judges
from stepscope.pocket.unet import painting as unet_painting
from stepscope.pocket.unet.image_prompt_file import PROMPTS
from stepscope.pocket.world import sample_identities

COUNT = {"cuda": 64, "cpu": 16}
SEED = gallery.HELD_OUT + 1
FOUND = 0.5
LCM = "with LCM-LoRA"


@dataclass(frozen=True)
class Case:
    """One adapter to be measured.

    references: what is shown as its reference, (n, 3, h, w). wanted: the judge of it, unit norm. shared:
    the judge of another render that shares what the adapter carries. judge: pictures to embeddings, NaN
    where there is nothing to judge. paint: (scale, few) to pictures (n, 3, h, w) in [0, 1].
    """

    name: str
    references: Tensor
    wanted: Tensor
    shared: Tensor
    judge: Callable[[Tensor], Tensor]
    paint: Callable[[float, bool], Tensor]
    backbones: tuple[str, str]
    steps: tuple[int, int]


def cases(said: Options) -> Sequence[Case]:
    """Every adapter, in the order of pocket/README.md."""
    pictures = [_picture(said, name) for name in ("style", "object")]
    return [*pictures, *_people(said), _one_person(said)]


def _count(said: Options) -> int:
    return 2 if said.smoke else COUNT[device().type]


def _unet_steps(said: Options) -> tuple[int, int]:
    return (2 if said.smoke else unet_painting.STEPS), few_steps.STEPS


def _flux_steps(said: Options) -> tuple[int, int]:
    return (2, 2) if said.smoke else (DEV_STEPS, SCHNELL_STEPS)


def _picture(said: Options, name: str) -> Case:
    """The IP-Adapter of style or object: one picture of each design, its second person's."""
    prompt, steps = PROMPTS[name], _unet_steps(said)
    strangers = gallery.paint(said.models, prompt.backbone, 4 * _count(said), SEED)
    rows = strangers.having(prompt.shares)
    rows = rows[rows % gallery.EACH == 1][: _count(said)]
    judge = from_onnx(judges.Judge(), judges.file(said.models, prompt.shares))
    image = image_encoder.embed(image_encoder.load(said.models), strangers.floats(rows))
    ids = strangers.ids[rows.roll(len(rows) // 2), 1]

    def paint(scale: float, few: bool) -> Tensor:
        pipe = unet_painting.with_image_prompt(said.models, name, few=few)
        return unet_painting.painted(pipe, ids, image, scale, few=few, seed=SEED, steps=steps[0])

    return Case(
        name,
        strangers.floats(rows),
        judge(strangers.floats(rows)),
        judge(strangers.floats(strangers.sharing(rows, prompt.shares))),
        judge,
        paint,
        (prompt.backbone, f"{prompt.backbone} {LCM}"),
        steps,
    )


def _people(said: Options) -> Sequence[Case]:
    """The adapters of faces, which read the first photo of each person."""
    count, models = _count(said), said.models
    seen = photos(said, sample_identities(count, SEED, device()))
    photo = seen.images[:, 0].float() / 255
    shelf = album.paint(models, count, SEED)  # the same people
    others = torch.arange(count, device=device()) * album.RENDERS + 1
    judge, vae = _face_judge(said), folders.load_vae(models)
    shared = judge(album.decode(vae, shelf.latents[others].float()))
    common = (photo, judge(photo), shared, judge)
    asked = others.roll(1)  # another person's prompt
    ids = gallery.paint(models, "sdxl", count, SEED).ids[asked, 1]
    drawings = instantid.drawn_keypoints(seen.keypoints[:, 0])
    steps = _unet_steps(said)

    def face_id(scale: float, few: bool) -> Tensor:
        pipe = unet_painting.with_image_prompt(models, "face_id", few=few)
        face = functional.normalize(seen.raw[:, 0])
        return unet_painting.painted(pipe, ids, face, scale, few=few, seed=SEED, steps=steps[0])

    def with_instantid(scale: float, few: bool) -> Tensor:
        pipe = unet_painting.with_instantid(models, few=few)
        return unet_painting.painted(
            pipe, ids, seen.raw[:, 0], scale, few=few, seed=SEED, steps=steps[0], drawings=drawings
        )

    def on_dev(adapter: Callable[..., Painter]) -> Callable[[float, bool], Tensor]:
        def paint(scale: float, few: bool) -> Tensor:
            if scale:
                painter = adapter(models, seen, few=few)
            else:
                _, painter = dev_painting.alone(models, few=few)
            told = folders.load_text(models)(shelf.clip_ids[asked, 1], shelf.t5_ids[asked, 1])
            return album.decode(vae, painter(noise(count, SEED), told, _flux_steps(said)[few]))

        return paint

    unets, flux = ("sdxl", f"sdxl {LCM}"), ("dev", "schnell")
    return [
        Case("face_id", *common, face_id, unets, steps),
        Case("instantid", *common, with_instantid, unets, steps),
        Case(
            "face_prompt", *common, on_dev(dev_painting.with_image_prompt), flux, _flux_steps(said)
        ),
        Case("pulid", *common, on_dev(dev_painting.with_pulid), flux, _flux_steps(said)),
    ]


def _one_person(said: Options) -> Case:
    """The LoRA: other prompts and noise, the same person each time."""
    count, models = _count(said), said.models
    who = sample_identities(1, person.SEED, device()).expand(count, -1)
    photo = photos(said, who).images[:, 0].float() / 255
    shelf = album.paint(models, count, SEED, who)
    others = torch.arange(count, device=device()) * album.RENDERS + 1
    judge, vae = _face_judge(said), folders.load_vae(models)
    shared = judge(album.decode(vae, shelf.latents[others].float()))

    def paint(scale: float, few: bool) -> Tensor:
        if scale:
            painter = dev_painting.with_person(models, few=few)
        else:
            _, painter = dev_painting.alone(models, few=few)
        told: Words = folders.load_text(models)(shelf.clip_ids[others, 1], shelf.t5_ids[others, 1])
        return album.decode(vae, painter(noise(count, SEED), told, _flux_steps(said)[few]))

    return Case(
        "person", photo, judge(photo), shared, judge, paint, ("dev", "schnell"), _flux_steps(said)
    )


def _face_judge(said: Options) -> Callable[[Tensor], Tensor]:
    """Pictures to the judge's embeddings at the detector's keypoints, NaN where no face is found."""
    judge, detector = shipped.load_judge(said.models), shipped.load_detector(said.models)

    def judged(images: Tensor) -> Tensor:
        score, points = networks.detect(detector, images)
        found = networks.embed(judge, images, points)
        return torch.where((score > FOUND)[:, None], found, torch.nan)

    return judged
