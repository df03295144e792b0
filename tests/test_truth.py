"""What a run says of a call is true, or not said: seeds, prompts, labels, arguments, branches."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.callbacks import SDCFGCutoffCallback

from stepscope.hooks import Capture, record
from tests.cases import NEGATIVE, PROMPT
from tests.models import flux
from tests.small import FLUX_SMALL, SMALL, opened, seeded

# Seeds: one is stored only if it alone made the sample's noise.


def test_a_generator_that_was_used_before_is_told_by_its_state(sd, tmp_path):
    generator = seeded(7)
    with record(sd, tmp_path / "run.zarr"):
        sd(PROMPT, generator=generator, **SMALL)
        sd(PROMPT, generator=generator, **SMALL)
    run = opened(tmp_path / "run.zarr")
    assert run.seed.values.tolist() == [7, -1]
    assert run.generator.values[0] == "seed 7"
    assert run.generator.values[1].startswith("state ")


def test_one_generator_for_several_samples_is_no_seed_of_any(sd, tmp_path):
    with record(sd, tmp_path / "run.zarr"):
        sd([PROMPT] * 2, generator=seeded(7), **SMALL)
    run = opened(tmp_path / "run.zarr")
    assert run.seed.values.tolist() == [-1, -1]
    assert set(run.generator.values) == {"seed 7, drawn from for 2 samples"}


def test_given_latents_have_no_seed(sd, tmp_path):
    latents = torch.randn(1, 4, 8, 12, generator=seeded(1))
    with record(sd, tmp_path / "run.zarr"):
        sd(PROMPT, generator=seeded(7), latents=latents, **SMALL)
    run = opened(tmp_path / "run.zarr")
    assert run.seed.values.tolist() == [-1]
    np.testing.assert_array_equal(run.latents[0, 0], latents[0])


@pytest.mark.parametrize("seed", [2**63, 2**64 - 1, -1, -5, 2**63 - 1])
def test_any_seed_that_torch_takes_is_kept_as_a_signed_number(sd, seed, tmp_path):
    with record(sd, tmp_path / "run.zarr"):
        sd(PROMPT, generator=seeded(seed), **SMALL)
    run = opened(tmp_path / "run.zarr")
    assert int(run.seed[0]) % 2**64 == seed % 2**64
    assert run.generator.values.tolist() == [f"seed {seed % 2**64}"]


# Prompts and labels.


def test_embeddings_made_beforehand_have_no_prompt_and_no_text_norm(tmp_path):
    pipe = flux()
    embeds, pooled, _ = pipe.encode_prompt(PROMPT, None, max_sequence_length=16)
    with record(pipe, tmp_path / "run.zarr"):
        pipe(
            prompt_embeds=embeds,
            pooled_prompt_embeds=pooled,
            negative_prompt=NEGATIVE,
            true_cfg_scale=3.0,
            **FLUX_SMALL,
        )
    run = opened(tmp_path / "run.zarr")
    assert (run.prompt.item(), run.negative_prompt.item()) == ("", NEGATIVE)
    assert run.text_tokens.item() == -1
    text = run.attention_norm.sel(stream=["text", "padding"])
    assert text.sel(branch="positive").isnull().all()
    assert text.sel(branch="negative").notnull().all()


def test_embeddings_made_while_recording_are_known(tmp_path):
    pipe = flux()
    with record(pipe, tmp_path / "run.zarr"):
        embeds, pooled, _ = pipe.encode_prompt(PROMPT, None, max_sequence_length=16)
        pipe(prompt_embeds=embeds, pooled_prompt_embeds=pooled, **FLUX_SMALL)
        pipe(PROMPT, **FLUX_SMALL)
    run = opened(tmp_path / "run.zarr")
    assert run.prompt.values.tolist() == [PROMPT, PROMPT]
    assert run.text_tokens[0] == run.text_tokens[1] > 0
    assert run.attention_norm.sel(stream="text").notnull().all()


def test_the_label_of_a_failed_call_is_not_the_next_one_s(sd, tmp_path):
    def fail(*args: Any) -> Any:
        raise KeyboardInterrupt

    with record(sd, tmp_path / "run.zarr") as recording:
        recording.label([{"prompt": "the failed one", "seed": 99}])
        with pytest.raises(KeyboardInterrupt):
            sd(PROMPT, callback_on_step_end=fail, **SMALL)
        sd(PROMPT, generator=seeded(3), **SMALL)
    run = opened(tmp_path / "run.zarr")
    assert (run.prompt.item(), run.seed.item()) == (PROMPT, 3)


def test_arguments_of_a_call_are_kept(sd, tmp_path):
    with record(sd, tmp_path / "run.zarr"):
        sd(PROMPT, negative_prompt=NEGATIVE, guidance_scale=5.0, **SMALL)
        sd(PROMPT, negative_prompt=NEGATIVE, guidance_scale=3.0, **SMALL)
    run = opened(tmp_path / "run.zarr")
    told = [json.loads(text) for text in run.arguments.values]
    assert [call["guidance_scale"] for call in told] == [5.0, 3.0]
    assert told[0]["num_inference_steps"] == 3
    assert run.negative_prompt.values.tolist() == [NEGATIVE, NEGATIVE]
    assert run.call.values.tolist() == [0, 1]


# Branches that change along a run.


def test_guidance_switched_off_leaves_the_negative_branch_missing(sd, tmp_path):
    at: Any = {"cutoff_step_ratio": None, "cutoff_step_index": 1}
    cutoff = SDCFGCutoffCallback(**at)
    call = SMALL | {"num_inference_steps": 5, "guidance_scale": 5.0}
    with record(sd, tmp_path / "whole.zarr", Capture(velocity=True)):
        sd(PROMPT, generator=seeded(0), **call)
    with record(sd, tmp_path / "cut.zarr", Capture(velocity=True)):
        sd(PROMPT, generator=seeded(0), callback_on_step_end=cutoff, **call)
    whole, cut = opened(tmp_path / "whole.zarr"), opened(tmp_path / "cut.zarr")
    for name in ("residual_norm", "velocity"):
        missing = cut[name].sel(branch="negative").isel(sample=0).isnull()
        present = [not bool(missing.isel(step=i).all()) for i in range(5)]
        assert present == [True, True, False, False, False]
        np.testing.assert_array_equal(cut[name][:, :2], whole[name][:, :2])
    image = cut.residual_norm.sel(branch="positive", stream="image")
    assert image.notnull().all()
