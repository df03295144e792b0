"""FLUX backbones through diffusers' own pipelines; a backbone always brings its own scheduler."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    FluxControlNetPipeline,
    FluxPipeline,
    FluxTransformer2DModel,
)
from diffusers.pipelines.flux.pipeline_flux import calculate_shift, retrieve_timesteps
from einops import rearrange
from torch import Tensor

from stepscope.hooks.errors import StepscopeError
from stepscope.probes.backbones.family import Backbone, Outline, Sizes
from stepscope.probes.backbones.folders import downloaded, laid_out, latent_sizes
from stepscope.probes.weights import (
    check_complete,
    explained,
    is_file,
    meta,
    weight_files,
)

PARTS = ("transformer", "vae", "scheduler")
"""Folders of a backbone without which none is read."""
FEW_STEPS = 8  # a distilled model is made for 1 to 4
TEXT_TOKENS = 512  # diffusers' FluxPipeline.check_inputs


class Flux:
    """FLUX.1-dev, FLUX.1-schnell and their fine-tunes."""

    name, title = "flux", "FLUX"
    longest_text = TEXT_TOKENS

    def folder(self, backbone: Backbone, *, download: bool = True, settings: bool = False) -> Path:
        """A local folder as it is; of a hub repository, what its `model_index.json` names, and no more.

        FLUX.1-dev's holds its transformer and VAE twice, of which diffusers reads 34 of 58 GB. Of a single
        file, the folder of its base. Raises WeightsError.
        """
        found = laid_out(backbone, PARTS, self.title, settings=settings)
        return downloaded(backbone, download=download) if found is None else found

    def files(self, backbone: Backbone) -> dict[str, Path]:
        rest = self.folder(backbone, download=False)
        inside = {name: f for name, f in weight_files(rest).items() if "/" in name}
        if not is_file(backbone.path):
            return inside
        others = {name: f for name, f in inside.items() if not name.startswith("transformer/")}
        return {**others, **weight_files(backbone.path)}

    def load(self, backbone: Backbone, device: str, components: Mapping[str, Any]) -> Any:
        dtype = getattr(torch, backbone.dtype)
        path, given = self.folder(backbone), dict(components)
        with explained(backbone.path, f"backbone {backbone.name}"):
            if is_file(backbone.path):
                given["transformer"] = FluxTransformer2DModel.from_single_file(
                    backbone.path, config=str(path), subfolder="transformer", dtype=dtype
                )
            kind = FluxControlNetPipeline if "controlnet" in given else FluxPipeline
            pipe = kind.from_pretrained(path, dtype=dtype, **given)
            for model in (pipe.transformer, pipe.vae):
                check_complete(model)
        check_pairing(pipe.transformer.config, pipe.scheduler.config, backbone.de_distilled)
        pipe.set_progress_bar_config(disable=True)
        return pipe.to(device)

    def outline(self, study: Sizes, folder: Path) -> Outline:
        with explained(study.backbone.path, f"backbone {study.backbone.name}"):
            transformer = meta(FluxTransformer2DModel, folder / "transformer")
            factor = latent_sizes(folder).factor
        y, x = (2 * (side // (2 * factor)) for side in (study.height, study.width))
        if not y or not x:
            raise StepscopeError(
                f"height={study.height}, width={study.width}: a token is {2 * factor} x {2 * factor} pixels"
            )
        tokens = {"image": (y // 2) * (x // 2), "text": study.max_sequence_length}

        def shape(site: str) -> tuple[int, int]:
            return tokens[site.rsplit(".", 1)[1]], transformer.inner_dim

        latent = transformer.config.in_channels // 4, y, x
        image, grid = (y * factor, x * factor), (y // 2, x // 2)
        return Outline(transformer, latent, image, grid, ("image", "text", "padding"), shape)

    def sigmas(self, study: Sizes, pipe: Any) -> Tensor:
        scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
        y, x = (2 * (s // (pipe.vae_scale_factor * 2)) for s in (study.height, study.width))
        config = scheduler.config
        mu = calculate_shift(
            (y // 2) * (x // 2),
            config.get("base_image_seq_len", 256),
            config.get("max_image_seq_len", 4096),
            config.get("base_shift", 0.5),
            config.get("max_shift", 1.15),
        )
        sigmas = torch.linspace(1.0, 1 / study.steps, study.steps, dtype=torch.float64).tolist()
        retrieve_timesteps(scheduler, study.steps, "cpu", sigmas=sigmas, mu=mu)
        return scheduler.sigmas[:-1]

    def planned_sigmas(self, study: Sizes, folder: Path) -> list[float]:
        scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler")
        pipe = SimpleNamespace(scheduler=scheduler, vae_scale_factor=latent_sizes(folder).factor)
        return self.sigmas(study, pipe).tolist()

    def arguments(self, study: Sizes, pipe: Any) -> dict[str, Any]:
        guided = pipe.transformer.config.guidance_embeds
        if guided and study.guidance is None:
            raise StepscopeError(
                f"{study.backbone.name} has a guidance embedding: name guidance=3.5"
            )
        return {
            "num_inference_steps": study.steps,
            "guidance_scale": study.guidance if guided else 0.0,  # schnell does not read it
            "true_cfg_scale": study.true_cfg,
            "height": study.height,
            "width": study.width,
            "max_sequence_length": study.max_sequence_length,
            "output_type": "np",
        }

    def negative(self, study: Sizes, rows: int) -> list[str] | None:
        return [study.negative_prompt or ""] * rows if study.true_cfg > 1 else None

    def packed(self, latents: Tensor) -> Tensor:
        """FLUX's 2 x 2 packing, channel first (FluxPipeline._pack_latents)."""
        return rearrange(latents, "b c (y p) (x q) -> b (y x) (c p q)", p=2, q=2)

    def starting(self, pipe: Any) -> AbstractContextManager[None]:
        return nullcontext()  # the first level is 1

    def unpacked(self, latents: Tensor, sides: Sequence[int]) -> Tensor:
        y, x = sides
        pattern = "... (y x) (c p q) -> ... c (y p) (x q)"
        return rearrange(latents, pattern, y=y // 2, x=x // 2, p=2, q=2)

    def text_tokens(self, pipe: Any, texts: Sequence[str], longest: int) -> list[int]:
        """Those of T5, whose embeddings the transformer's text stream is."""
        made = pipe.tokenizer_2(
            list(texts), padding="max_length", max_length=longest, truncation=True
        )
        return [sum(mask) for mask in made["attention_mask"]]

    def notes(self, study: Sizes, folder: Path) -> Iterator[str]:
        transformer: Any = FluxTransformer2DModel.load_config(folder / "transformer")
        name = study.backbone.name
        if transformer["guidance_embeds"] or study.backbone.de_distilled:
            return
        if study.guidance is not None:
            yield f"guidance={study.guidance} is not read: {name} has no guidance embedding"
        if study.steps > FEW_STEPS:
            yield f"steps={study.steps}: {name} is distilled for 1 to 4 steps"


def check_pairing(transformer: Any, scheduler: Any, de_distilled: bool = False) -> None:
    """Raise StepscopeError if a transformer runs under the other backbone's schedule.

    FLUX.1-dev has a guidance embedding and a resolution-dependent (dynamic) shift; schnell has
    neither. Swapping `pipe.transformer` alone keeps dev's schedule silently: sigmas
    1, .90, .75, .50 where schnell was distilled for 1, .75, .50, .25. A de-distilled dev has no
    guidance embedding and dev's schedule.
    """
    guided, dynamic = bool(transformer.guidance_embeds), bool(scheduler.use_dynamic_shifting)
    if de_distilled and (guided or not dynamic):
        raise StepscopeError(
            "backbone.de_distilled=true is for weights without a guidance embedding under a dynamic shift: "
            f"these have guidance_embeds={guided}, use_dynamic_shifting={dynamic}"
        )
    if guided != dynamic and not de_distilled:
        weights, schedule = ("dev", "schnell") if guided else ("schnell", "dev")
        cure = "" if guided else "; if they are a de-distilled dev, backbone.de_distilled=true"
        raise StepscopeError(
            f"these are {weights}'s weights (guidance_embeds={guided}) under {schedule}'s schedule "
            f"(use_dynamic_shifting={dynamic}): take the scheduler from the backbone's own folder{cure}"
        )
