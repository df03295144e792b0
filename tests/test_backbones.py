"""Backbones of each family from folders and single files; weights under another's schedule are refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from diffusers import (
    EulerDiscreteScheduler,
    FluxTransformer2DModel,
    LCMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import save_file

from stepscope.probes.backbones import FAMILIES
from stepscope.probes.backbones.distilled import DISTILLATIONS
from stepscope.probes.plan import outline, skeletons
from tests.adapter_words import IP_ADAPTER, lora_file, unet_words
from tests.models import INFINITE_YOU
from tests.shell import study_of, tiny
from tests.small import opened

PIPELINES = {"sd15": StableDiffusionPipeline, "sdxl": StableDiffusionXLPipeline}


def final(typed: Any, words: list[str], out: Path) -> xr.Dataset:
    answer = typed([*words, f"out={out}"])
    assert answer.status == 0, answer.err
    return xr.open_zarr(out).load()


def latents_of(pipe: Any, **more: Any) -> Any:
    """Final latents of diffusers' own call, with the prompt, size and first noise of `unet_words`."""
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    prompt = "a man portrait cinematic"
    return pipe(prompt, height=64, width=64, latents=noise, output_type="latent", **more).images


@pytest.mark.parametrize("name", PIPELINES)
@pytest.mark.parametrize("cfg", [1.0, 4.0])
def test_latents_are_those_of_diffusers_own_call(name, cfg, typed, tmp_path):
    run = final(typed, unet_words(name, true_cfg=cfg), tmp_path / "run.zarr")
    pipe: Any = PIPELINES[name].from_pretrained(IP_ADAPTER / name)
    made = latents_of(pipe, guidance_scale=cfg, num_inference_steps=3)
    np.testing.assert_array_equal(run.final_latents, made)
    assert run.branch.values.tolist() == ["positive", "negative"][: 2 if cfg > 1 else 1]


@pytest.mark.parametrize("name", PIPELINES)
def test_planned_sigmas_are_those_that_are_recorded(name, typed, tmp_path):
    words = unet_words(name, steps=4)
    run = final(typed, words, tmp_path / "run.zarr")
    study = study_of(words)
    planned = study.family.planned_sigmas(study, skeletons(study).folder)
    np.testing.assert_allclose(planned, run.sigma, rtol=1e-6)


@pytest.mark.parametrize("name", PIPELINES)
def test_whole_tensors_are_planned_as_they_are_recorded(name, typed, tmp_path):
    words = unet_words(name, steps=2, record="full")
    words.append("record.sites=['mid.*','down.*.residual.image']")
    run = final(typed, words, tmp_path / "run.zarr")
    found = outline(study_of(words))
    whole = {key: shape for key, (_, shape) in found.variables.items() if "." in key}
    assert len(whole) > 3
    assert {key: run[key].shape[1:] for key in whole} == whole


def test_a_single_file_is_the_folder_of_it(typed, tmp_path):
    transformer = FluxTransformer2DModel.from_pretrained(INFINITE_YOU / "flux-dev" / "transformer")
    save_file(transformer.state_dict(), tmp_path / "fine-tune.safetensors")
    words = tiny(backbone__path=tmp_path / "fine-tune.safetensors")
    answer = typed(words)
    assert answer.status == 2
    assert "is a single file: name the folder" in answer.line
    words.append(f"backbone.base={INFINITE_YOU / 'flux-dev'}")
    file = final(typed, words, tmp_path / "file.zarr")
    folder = final(typed, tiny(), tmp_path / "folder.zarr")
    np.testing.assert_array_equal(file.final_latents, folder.final_latents)
    kept = opened(tmp_path / "file.zarr").attrs["weights"]
    assert "backbone.path/fine-tune.safetensors" in kept


def changed(folder: Path, base: Path, part: str, **settings: Any) -> Path:
    """A copy of a backbone with another configuration of one part."""
    shutil.copytree(base, folder)
    (path,) = (folder / part).glob("*config.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return folder


def test_a_de_distilled_flux_runs_under_devs_schedule(typed, tmp_path):
    own = INFINITE_YOU / "flux-schnell"
    path = changed(tmp_path / "flux", own, "scheduler", use_dynamic_shifting=True)
    words = tiny("schnell", backbone__path=path, guidance="null")
    assert "backbone.de_distilled=true" in typed(words).line
    run = final(typed, [*words, "backbone.de_distilled=true"], tmp_path / "run.zarr")
    assert run.sigma[1] > 0.5  # shifted: schnell's is 0.5
    answer = typed([*tiny(), "backbone.de_distilled=true"])
    assert "guidance_embeds=True" in answer.line


def lightning(folder: Path, name: str = "sdxl_lightning_4step_unet.safetensors") -> Path:
    unet = UNet2DConditionModel.from_pretrained(IP_ADAPTER / "sdxl" / "unet")
    save_file({k: 1.01 * v for k, v in unet.state_dict().items()}, folder / name)
    return folder / name


@pytest.mark.parametrize(
    "word",
    [
        pytest.param(w, marks=pytest.mark.slow) if w in ("hyper", "tcd") else w
        for w in DISTILLATIONS
    ],
)
def test_a_distillation_steps_with_its_own_scheduler(word, typed, tmp_path):
    wanted = DISTILLATIONS[word]
    more: dict[str, Any] = {"backbone__distillation": word, "steps": 2, "true_cfg": 1.0}
    if word == "turbo":  # published as a whole model, whose name says it
        (tmp_path / "sdxl-turbo").symlink_to(IP_ADAPTER / "sdxl")
        more["backbone__path"] = tmp_path / "sdxl-turbo"
    else:
        more["backbone__weights"] = shutil.copy(
            lora_file(tmp_path, "sdxl"), tmp_path / f"{word}.safetensors"
        )
    words = unet_words("sdxl", **more)
    run = final(typed, words, tmp_path / "run.zarr")
    assert wanted.scheduler in json.dumps(opened(tmp_path / "run.zarr").attrs)
    assert "contribution" not in run, "fused weights are the backbone's own"


def test_a_distilled_unet_is_the_one_that_runs(typed, tmp_path):
    words = unet_words(
        "sdxl",
        backbone__distillation="lightning",
        backbone__weights=lightning(tmp_path),
        steps=4,
        true_cfg=1.0,
    )
    run = final(typed, words, tmp_path / "run.zarr")
    pipe: Any = StableDiffusionXLPipeline.from_pretrained(IP_ADAPTER / "sdxl")
    pipe.unet.load_state_dict({k: 1.01 * v for k, v in pipe.unet.state_dict().items()})
    config = pipe.scheduler.config
    pipe.scheduler = EulerDiscreteScheduler.from_config(config, timestep_spacing="trailing")
    made = latents_of(pipe, guidance_scale=1.0, num_inference_steps=4)
    np.testing.assert_array_equal(run.final_latents, made)


def test_wrong_mixtures_are_refused(typed, tmp_path):
    sdxl, sd15 = IP_ADAPTER / "sdxl", IP_ADAPTER / "sd15"
    turbo = changed(
        tmp_path / "turbo",
        sdxl,
        "scheduler",
        _class_name="EulerAncestralDiscreteScheduler",
        timestep_spacing="trailing",
    )
    lcm = changed(tmp_path / "lcm", sdxl, "unet", time_cond_proj_dim=8)
    file, whole = lightning(tmp_path), tmp_path / "sdxl_lightning_4step.safetensors"
    whole.touch()
    wrong = {
        "brings Turbo's schedule": {"backbone__path": turbo},
        "has an LCM's U-Net": {"backbone__path": lcm},
        "is distilled by its name": {"backbone__weights": file},
        "is lightning by its name": {"backbone__weights": file, "backbone__distillation": "lcm"},
        "is distilled by its name: backbone.distillation=lightning": {
            "backbone__path": whole,
            "backbone__base": sdxl,
        },
        "has no weights": {"backbone__distillation": "hyper"},
        "is distilled for 4 by its name": {
            "backbone__weights": file,
            "backbone__distillation": "lightning",
            "steps": 8,
        },
        "leave backbone.scheduler out": {
            "backbone__weights": file,
            "backbone__distillation": "lightning",
            "backbone__scheduler": "DDIMScheduler",
            "steps": 4,
        },
        "is of StableDiffusionPipeline: backbone.family=sd15": {"backbone__path": sd15},
        "did you mean 'lightning'": {"backbone__distillation": "lighting"},
        "is not known here": {"backbone__scheduler": "HeunDiscreteScheduler"},
        "name another, backbone.scheduler=DDIMScheduler": {
            "backbone__scheduler": "PNDMScheduler",
            "steps": 4,
        },
        "makes multiples of 8": {"height": 60},
        "SDXL reads 77 at most": {"max_sequence_length": 512},
    }
    for told, more in wrong.items():
        answer = typed(unet_words("sdxl", **more))
        assert answer.status == 2, told
        assert told in answer.line


def test_an_lcm_reads_guidance_in_its_embedding(typed, tmp_path):
    unet = UNet2DConditionModel.from_pretrained(IP_ADAPTER / "sd15" / "unet")
    config = {**unet.config, "time_cond_proj_dim": 8}
    torch.manual_seed(0)
    guided: Any = UNet2DConditionModel.from_config(config)
    shutil.copytree(IP_ADAPTER / "sd15", tmp_path / "lcm")
    guided.save_pretrained(tmp_path / "lcm" / "unet")
    words = unet_words(
        "sd15",
        backbone__path=tmp_path / "lcm",
        backbone__distillation="lcm",
        backbone__scheduler="null",
        steps=2,
    )
    assert "name guidance=8.0" in typed([*words, "true_cfg=1.0"]).line
    assert "reads guidance in an embedding" in typed([*words, "guidance=8.0"]).line
    run = final(typed, [*words, "guidance=8.0", "true_cfg=1.0"], tmp_path / "run.zarr")
    pipe: Any = StableDiffusionPipeline.from_pretrained(tmp_path / "lcm", safety_checker=None)
    pipe.scheduler = LCMScheduler.from_config(pipe.scheduler.config)
    made = latents_of(
        pipe,
        guidance_scale=8.0,
        num_inference_steps=2,
        generator=[torch.Generator().manual_seed(0)],
    )
    np.testing.assert_array_equal(run.final_latents, made)


def test_guidance_and_classifier_free_guidance_are_two_keys(typed, tmp_path):
    answer = typed([*unet_words("sdxl", guidance=3.5), "--dry"])
    assert "guidance=3.5 is not read" in answer.out


def test_every_family_has_a_backbone_of_its_name():
    conf = Path(__file__).parents[1] / "conf" / "backbone"
    text = "".join(path.read_text() for path in conf.glob("*.yaml"))
    assert all(f"family: {family.name}" in text for family in FAMILIES)
