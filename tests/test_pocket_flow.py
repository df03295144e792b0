"""The pocket flow draws what diffusers' pipelines draw, and its training pieces are what they say."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline

from stepscope.pocket import album, folders, sampling, schnell
from stepscope.pocket.flow import Words, noise, noised, pack, transformer, unpack, velocity
from stepscope.pocket.muon import Muon, orthogonalised, split
from stepscope.pocket.process import MODELS
from stepscope.pocket.report import way
from stepscope.pocket.sampling import DEV_SCHEDULER, SCHNELL_SCHEDULER, Adapter, sample, sigmas

PROMPT = "half-body poster of a person smiling at the beach wearing a yellow t-shirt"
CASES = [("flux-dev", DEV_SCHEDULER, 3, 2.0), ("flux-schnell", SCHNELL_SCHEDULER, 4, None)]


@pytest.mark.parametrize(("name", "scheduler", "steps", "guidance"), CASES)
def test_sampling_equals_diffusers_own_pipeline(name, scheduler, steps, guidance):
    pipe: Any = FluxPipeline.from_pretrained(MODELS / name, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    start = noise(1, 5)
    wanted = pipe(
        PROMPT,
        num_inference_steps=steps,
        guidance_scale=guidance or 0.0,
        height=128,
        width=128,
        max_sequence_length=32,
        latents=start,
        output_type="latent",
    ).images
    model = folders.load_dev(MODELS) if guidance else folders.load_schnell(MODELS)
    words = folders.load_text(MODELS)
    with torch.no_grad():
        told = words(*album.tokens([PROMPT]))
    found = sample(model, start, told, sigmas(scheduler, steps), guidance)
    assert torch.equal(pipe.scheduler.sigmas, torch.tensor(sigmas(scheduler, steps)))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def dev():
    return folders.load_dev(MODELS)


@pytest.fixture(scope="module")
def told():
    words = folders.load_text(MODELS)
    with torch.no_grad():
        return words(*album.tokens([PROMPT]))


def test_packing_is_fluxpipelines():
    latents = torch.randn(2, 16, 32, 32)
    wanted = FluxPipeline._pack_latents(latents, 2, 16, 32, 32)
    torch.testing.assert_close(pack(latents), wanted)
    torch.testing.assert_close(unpack(pack(latents)), latents)


def test_dev_at_a_fixed_guidance_needs_no_embedding(dev, told):
    x, sigma = noise(1, 1), torch.tensor([0.4])
    fixed = folders.fixed_guidance(dev, 2.0)
    with torch.no_grad():
        wanted = velocity(dev, x, sigma, told, torch.tensor([2.0]))
        torch.testing.assert_close(velocity(fixed, x, sigma, told), wanted, rtol=0, atol=1e-5)


def test_an_adapter_of_scale_zero_does_nothing_and_of_scale_one_does(dev, told):
    net, projection = folders.load_adapter(MODELS, dev)
    face = torch.nn.functional.normalize(torch.randn(1, 1, 512), dim=-1)
    dark = album.black(folders.load_vae(MODELS))
    x, levels = noise(1, 2), sigmas(DEV_SCHEDULER, 2)
    with torch.no_grad():
        identity = projection(face)
    without = sample(dev, x, told, levels, 2.0)
    off = sample(dev, x, told, levels, 2.0, Adapter(net, identity, dark, scale=0.0))
    on = sample(dev, x, told, levels, 2.0, Adapter(net, identity, dark))
    torch.testing.assert_close(off, without)
    assert (on - without).abs().mean() > 1e-3


def test_the_projection_has_infinite_yous_names():
    kept = torch.load(MODELS / "infinite-you" / "image_proj_model.bin", weights_only=True)
    published = kept["image_proj"]
    layer = ["0.norm1.weight", "0.norm1.bias", "0.norm2.weight", "0.norm2.bias"]
    layer += ["0.to_q.weight", "0.to_kv.weight", "0.to_out.weight"]
    layer += ["1.0.weight", "1.0.bias", "1.1.weight", "1.3.weight"]
    outer = ["latents"]
    outer += [f"{n}.{w}" for n in ("proj_in", "proj_out", "norm_out") for w in ("weight", "bias")]
    inner = [f"layers.{i}.{name}" for i in range(2) for name in layer]
    assert sorted(published) == sorted(outer + inner)
    own = folders.own_projection(published)
    back = folders.published_projection(own)
    assert all(torch.equal(back[name], published[name]) for name in published)


def test_noise_levels_move_along_a_straight_line():
    clean, pure = torch.randn(3, 256, 64), torch.randn(3, 256, 64)
    x = noised(clean, pure, torch.tensor([0.0, 0.25, 1.0]))
    torch.testing.assert_close(x[0], clean[0])
    torch.testing.assert_close(x[1], 0.75 * clean[1] + 0.25 * pure[1])
    torch.testing.assert_close(x[2], pure[2])


def test_a_segment_ends_where_devs_own_trajectory_does(monkeypatch):
    """On dx/dsigma = sigma the mean velocity over a segment is its midpoint."""
    monkeypatch.setattr(schnell, "SUBSTEPS", 1)
    monkeypatch.setattr(
        schnell, "velocity", lambda model, x, level, told, guidance: level[:, None, None] + 0 * x
    )
    empty = Words(torch.zeros(2, 1, 1), torch.zeros(2, 1))
    x = torch.zeros(2, 256, 64)
    for start, wanted in ((1.0, 0.875), (0.5, 0.375)):
        found = schnell.mean_velocity(None, x, start, empty)  # pyright: ignore[reportArgumentType]
        torch.testing.assert_close(found, torch.full_like(x, wanted), rtol=0, atol=1e-4)


def test_schnells_substeps_stand_where_devs_scheduler_puts_them():
    levels = sigmas(DEV_SCHEDULER, 28)
    even = [sampling.even(level) for level in levels]
    assert even == pytest.approx(torch.linspace(1, 0, 29).tolist(), abs=1e-5)
    assert [sampling.shifted(t) for t in even] == pytest.approx(levels, abs=1e-5)


@pytest.mark.parametrize("shape", [(3, 20, 60), (2, 60, 20)])
def test_a_muon_step_is_about_as_large_in_every_direction(shape):
    matrices = torch.randn(shape) * torch.logspace(0, -1, shape[-1])
    values = torch.linalg.svdvals(orthogonalised(matrices))
    assert values.min() > 0.5
    assert values.max() < 1.35


def test_muon_finds_a_linear_map():
    torch.manual_seed(0)
    layer, goal = torch.nn.Linear(12, 12, bias=True), torch.randn(12, 12)
    x = torch.randn(256, 12)
    optimiser = Muon([layer.weight], [layer.bias], 0.03, ratio=4.0, decay=0.0)
    for step in range(300):
        optimiser.param_groups[0]["lr"] = 0.03 * (1 - step / 300)
        loss = (layer(x) - x @ goal).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    torch.testing.assert_close(layer.weight.detach(), goal.T, rtol=0, atol=0.05)


def test_muon_gets_the_blocks_matrices_and_adamw_the_rest():
    model = transformer(guidance=True)
    matrices, others = split(model)
    assert len(matrices) + len(others) == len(list(model.parameters()))
    assert all(m.ndim == 2 for m in matrices)
    share = sum(m.numel() for m in matrices) / sum(p.numel() for p in model.parameters())
    assert 0.6 < share < 0.8


def test_faces_weigh_most_where_the_keypoints_are():
    points = torch.tensor([[[40.0, 40], [56, 40], [48, 48], [42, 56], [54, 56]]])
    empty = torch.zeros(1, 2, 32, dtype=torch.long)
    faces = torch.zeros(1, 512)
    shelf = album.Album(torch.zeros(1, 256, 64), points, faces, faces, empty, empty)
    weight = shelf.face_weight(torch.tensor([0])).view(16, 16)
    assert divmod(int(weight.argmax()), 16) in [(5, 5), (5, 6), (6, 5), (6, 6)]
    assert weight.mean().item() == pytest.approx(1)


def test_the_way_goes_from_floor_to_ceiling():
    assert way(0.1, 0.9, 0.1) == 0
    assert way(0.9, 0.9, 0.1) == pytest.approx(1)


def test_configurations_are_the_published_ones():
    def read(*parts: str) -> dict:
        return json.loads(Path(MODELS, *parts).read_text())

    dev, fast = (
        read(n, "scheduler", "scheduler_config.json") for n in ("flux-dev", "flux-schnell")
    )
    assert dev["use_dynamic_shifting"] is True
    assert dev["shift"] == 3.0
    assert fast["use_dynamic_shifting"] is False
    assert fast["shift"] == 1.0
    assert read("flux-dev", "transformer", "config.json")["guidance_embeds"] is True
    assert read("flux-schnell", "transformer", "config.json")["guidance_embeds"] is False
    assert read("infinite-you", "InfuseNetModel", "config.json")["guidance_embeds"] is True
