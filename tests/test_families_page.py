"""docs/families.md: its table is what the code says, and its example is a family that is right."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from diffusers import CogView4Pipeline, CogView4Transformer2DModel, FlowMatchEulerDiscreteScheduler

from stepscope.hooks import Edit, Scale, edit, families, record, verify
from tests import family_models, family_table
from tests.models import randomised

PAGE = Path("docs/families.md").read_text()


@pytest.mark.slow
def test_the_table_is_made_by_the_code():
    assert "\n".join(family_table.table()) in PAGE


def test_the_table_has_every_family_that_ships():
    rows = re.findall(r"^\| (.+?): `(\w+)`", PAGE, re.M)
    assert rows == [(one.name, one.model.__name__) for one in family_table.families()]


@pytest.fixture
def cogview4() -> CogView4Pipeline:
    torch.manual_seed(0)
    transformer = CogView4Transformer2DModel(
        in_channels=16, out_channels=16, num_layers=2, attention_head_dim=16, num_attention_heads=2,
        text_embed_dim=family_models.WIDTH, time_embed_dim=8, condition_dim=4, rope_axes_dim=(8, 8),
    )  # fmt: skip
    parts: dict[str, Any] = {"tokenizer": None, "text_encoder": None}
    pipe = CogView4Pipeline(
        **parts, vae=family_models.vae_of_sd3(),
        transformer=randomised(transformer, seed=3),
        scheduler=FlowMatchEulerDiscreteScheduler(),
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def registered():
    before = list(families.FAMILIES)
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    assert len([line for line in example.splitlines() if line.strip()]) < 30
    exec(example, {})
    yield
    families.FAMILIES[:] = before


def test_the_example_records_edits_and_verifies(cogview4, registered, tmp_path):
    words = torch.randn(2, 1, 7, family_models.WIDTH, generator=torch.Generator().manual_seed(1))

    def call() -> np.ndarray:
        return cogview4(
            prompt_embeds=words[0], negative_prompt_embeds=words[1], height=32, width=48,
            num_inference_steps=3, guidance_scale=4.0, output_type="np",
            generator=torch.Generator().manual_seed(0),
        ).images  # fmt: skip

    before, latents = call(), []
    cogview4.scheduler.step, step = (
        (
            lambda output, t, sample, **more: [
                latents.append(sample),
                step(output, t, sample, **more),
            ][1]
        ),
        cogview4.scheduler.step,
    )
    with record(cogview4, tmp_path / "run.zarr"):
        assert np.array_equal(call(), before)
    del cogview4.scheduler.step
    run = xr.open_zarr(tmp_path / "run.zarr").load()
    assert run.branch.values.tolist() == ["positive", "negative"]
    assert run.attention_norm.sel(stream=["image", "text"]).notnull().all()
    for k, latent in enumerate(latents):
        assert np.array_equal(run.latents.values[0, k], latent[0].numpy())
    assert all(finding.holds for finding in verify(cogview4, call))
    with edit(cogview4, Edit("*", Scale(1.0))):
        assert np.array_equal(call(), before)
    with edit(cogview4, Edit("double.01.attention.image", Scale(0.0))):
        assert not np.array_equal(call(), before)
    assert np.array_equal(call(), before)
