"""Calls that are unusual and allowed: what they made is recorded, or they are refused before they cost."""

import copy
import json
import os
import pickle
import threading
import time
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from stepscope.hooks import Capture, record
from stepscope.hooks.errors import RunError, UnsupportedPipelineError
from stepscope.hooks.store import Run
from tests.cases import CASES, PROMPT
from tests.models import stable_diffusion
from tests.small import NO_STEP, SMALL, opened, seeded


def slowed(monkeypatch, seconds: float) -> None:
    """Every sample is written so late."""
    append = Run.append

    def late(self: Run, *args: Any) -> None:
        time.sleep(seconds)
        append(self, *args)

    monkeypatch.setattr(Run, "append", late)


# What is stored of a call.


def test_one_generator_for_two_samples_is_the_seed_of_neither(sd, tmp_path):
    shared = seeded(5)
    with record(sd, tmp_path / "run.zarr"):
        sd([PROMPT] * 3, generator=[shared, seeded(5), shared], **SMALL)
    run = opened(tmp_path / "run.zarr")
    assert run.seed.values.tolist() == [-1, 5, -1]
    twice = "seed 5, drawn from for 2 samples"
    assert run.generator.values.tolist() == [twice, "seed 5", twice]


def test_numbers_of_numpy_and_torch_are_told_by_their_values(sd, tmp_path):
    with record(sd, tmp_path / "run.zarr"):
        steps = {"num_inference_steps": np.int64(3)}
        sd(PROMPT, **SMALL | steps, guidance_scale=np.float32(3.5), eta=torch.tensor(0.0))
    told = opened(tmp_path / "run.zarr").arguments.item()
    assert '"num_inference_steps": 3,' in told
    assert '"guidance_scale": 3.5,' in told
    assert '"eta": 0.0,' in told


def test_sigmas_and_numbers_that_are_not_finite_are_told_in_json(tmp_path):
    sigmas = [1.0, 0.75, 0.5]
    case = CASES["flux"]
    with record(case.pipe, tmp_path / "run.zarr"):
        for given in (sigmas, np.array(sigmas), np.array(sigmas, np.float32)):
            case(sigmas=given, joint_attention_kwargs={"scale": np.inf, "ratio": float("nan")})
        case(
            sigmas=sigmas,
            joint_attention_kwargs={"of": torch.arange(1001), "map": np.zeros((2, 2))},
        )

    def refuse(word: str) -> None:
        pytest.fail(f"{word} is no JSON")

    run = opened(tmp_path / "run.zarr")
    told = [json.loads(text, parse_constant=refuse) for text in run.arguments.values]
    assert [one["sigmas"] for one in told] == [sigmas] * 4
    assert told[0]["joint_attention_kwargs"] == {"scale": "inf", "ratio": "nan"}
    assert told[3]["joint_attention_kwargs"] == {"of": "Tensor (1001,)", "map": "ndarray (2, 2)"}


def test_latents_that_the_caller_changes_afterwards_are_those_that_were_made(
    sd, tmp_path, monkeypatch
):
    slowed(monkeypatch, 0.3)
    with record(sd, tmp_path / "run.zarr"):
        made = sd(PROMPT, **SMALL | {"output_type": "latent"}).images
        kept = made.clone()
        made.zero_()
    np.testing.assert_array_equal(opened(tmp_path / "run.zarr").final_latents, kept)


def test_a_label_is_what_it_was_when_it_was_given(sd, tmp_path, monkeypatch):
    slowed(monkeypatch, 0.3)
    label: Any = {"face": "ada", "words": ["first"]}
    with record(sd, tmp_path / "run.zarr") as recording:
        recording.label([label])
        sd(PROMPT, **SMALL)
        label["words"].append("second")
    assert opened(tmp_path / "run.zarr").words.values.tolist() == ['["first"]']


def test_a_run_stays_where_it_is_when_the_folder_changes(sd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    with record(sd, "run.zarr"):
        for folder in ("elsewhere", ".."):
            sd(PROMPT, **SMALL)
            os.chdir(folder)
    assert opened(tmp_path / "run.zarr").done.values.tolist() == [True, True]
    assert not list((tmp_path / "elsewhere").iterdir())


# What does not fit is refused before it is paid for, and no image is lost.


@pytest.mark.parametrize("verb", ["label", "place"])
def test_labels_of_other_samples_are_refused_before_a_step(verb, sd, tmp_path):
    with record(sd, tmp_path / "run.zarr") as recording:
        recording.label([{"face": "ada"}] * 2) if verb == "label" else recording.place([0, 1])
        with pytest.raises(RunError, match=rf"{verb}\(\) named 2 samples and the call makes 1"):
            sd(PROMPT, **SMALL, **NO_STEP)
        sd(PROMPT, **SMALL)
    assert opened(tmp_path / "run.zarr").done.values.tolist() == [True]


@pytest.mark.parametrize("other", [{"height": 24}, {"output_type": "latent"}])
def test_a_call_of_another_size_is_refused_at_its_first_step_and_the_next_is_recorded(
    other, sd, tmp_path
):
    with record(sd, tmp_path / "run.zarr"):
        sd(PROMPT, **SMALL)
        with pytest.raises(RunError, match=r"run\.zarr.*into another run"):
            sd(PROMPT, **SMALL | other, **NO_STEP)
        sd(PROMPT, **SMALL)
    assert opened(tmp_path / "run.zarr").done.values.tolist() == [True, True]


def test_a_call_of_fewer_of_the_same_steps_is_refused_at_its_first(tmp_path):
    pipe, small = CASES["sdxl"].pipe, {"height": 16, "width": 24, "num_inference_steps": 4}
    with record(pipe, tmp_path / "run.zarr"):
        pipe(PROMPT, **small)
        with pytest.raises(RunError, match=r"x0 \(step, channel, y, x\) is \(2, .* and \(4, "):
            pipe(PROMPT, denoising_end=0.5, **small, **NO_STEP)
    assert opened(tmp_path / "run.zarr").done.values.tolist() == [True]


def test_a_text_of_another_length_does_not_fit_whole_tensors(tmp_path):
    case = CASES["flux"]
    sites = Capture(level="full", sites=("double.00.attention.text",))
    with record(case.pipe, tmp_path / "run.zarr", sites):
        case()
        with pytest.raises(RunError, match=r"double.00.attention.text.*is \(8, 32\)"):
            case(max_sequence_length=8)
    assert opened(tmp_path / "run.zarr").done.values.tolist() == [True]


def test_a_disk_that_fails_costs_no_image_and_is_told_where_the_next_call_begins(
    sd, tmp_path, monkeypatch
):
    begun, failed = threading.Event(), threading.Event()

    def fail(*args: Any) -> None:
        begun.wait(60)
        failed.set()
        raise OSError("no space left")

    def wait(*args: Any) -> dict[str, Any]:
        begun.set()
        assert failed.wait(60)
        time.sleep(0.1)
        return {}

    with record(sd, tmp_path / "run.zarr"):
        sd(PROMPT, **SMALL)
    with record(sd, tmp_path / "run.zarr"):
        with monkeypatch.context() as full:
            full.setattr(Run, "append", fail)
            sd(PROMPT, **SMALL)
            # what is written of the last call fails while this one runs
            assert len(sd(PROMPT, **SMALL, callback_on_step_end=wait).images) == 1
            with pytest.raises(OSError, match="no space left"):
                sd(PROMPT, **SMALL, **NO_STEP)
        sd(PROMPT, **SMALL)
    assert opened(tmp_path / "run.zarr").done.values.tolist() == [True, True]


def test_labels_of_another_type_than_those_not_yet_written_are_refused(sd, tmp_path, monkeypatch):
    slowed(monkeypatch, 0.3)
    with record(sd, tmp_path / "run.zarr") as recording:
        for words in ({}, {"mood": 1}):
            recording.label([words])
            sd(PROMPT, **SMALL)
        with pytest.raises(RunError, match="label 'mood'"):
            recording.label([{"mood": "glad"}])
    assert opened(tmp_path / "run.zarr").mood.values.tolist()[1:] == [1]


def test_a_label_with_the_name_of_a_site_is_refused_at_the_first_step(tmp_path):
    case, site = CASES["flux"], "double.00.attention.image"
    with record(
        case.pipe, tmp_path / "run.zarr", Capture(level="full", sites=(site,))
    ) as recording:
        recording.label([{site: 1}])
        with pytest.raises(RunError, match=f"label '{site}'"):
            case(**NO_STEP)
        case()
    assert opened(tmp_path / "run.zarr").done.values.tolist() == [True]


@pytest.mark.parametrize("why", ["a file", "read-only"])
def test_a_path_that_cannot_be_written_is_refused_on_entry(why, sd, tmp_path, monkeypatch):
    if why == "a file":
        (tmp_path / "there").write_text("")
    else:
        monkeypatch.setattr(os, "access", lambda *a: False)  # root may write anywhere else
    with pytest.raises(RunError, match=rf"run\.zarr cannot be written: .* is {why}"):
        with record(sd, tmp_path / "there" / "run.zarr"):
            pytest.fail("it began")
    assert type(sd) is diffusers.StableDiffusionPipeline


def test_autocast_is_another_model_and_is_told(sd, tmp_path):
    with record(sd, tmp_path / "run.zarr"):
        with torch.autocast("cpu", torch.bfloat16):
            sd(PROMPT, **SMALL)
        with pytest.raises(RunError, match="another autocast: bfloat16 -> "):
            sd(PROMPT, **SMALL, **NO_STEP)
    run = opened(tmp_path / "run.zarr")
    assert (run.attrs["dtype"], run.attrs["autocast"]) == ("float32", "bfloat16")


# Copies, and calls at once.


def test_a_copy_made_while_recording_is_a_pipeline_of_its_own(sd, tmp_path):
    with record(sd, tmp_path / "run.zarr"):
        sd(PROMPT, **SMALL)
        shallow, deep = copy.copy(sd), copy.deepcopy(sd)
    for made in (shallow, deep):
        assert type(made) is diffusers.StableDiffusionPipeline
        assert "encode_prompt" not in vars(made)
    images = [pipe(PROMPT, generator=seeded(0), **SMALL).images for pipe in (sd, shallow, deep)]
    np.testing.assert_array_equal(images[0], images[1])
    np.testing.assert_array_equal(images[0], images[2])


def test_a_pipeline_that_is_recorded_is_not_pickled_and_one_that_was_is(tmp_path):
    pipe = stable_diffusion()
    with record(pipe, tmp_path / "run.zarr"):
        pipe(PROMPT, **SMALL)
        with pytest.raises(
            UnsupportedPipelineError, match="StableDiffusionPipeline under `record`"
        ):
            pickle.dumps(pipe)
    both: list[Any] = [pipe, pickle.loads(pickle.dumps(pipe))]
    assert type(both[1]) is diffusers.StableDiffusionPipeline
    images = [one(PROMPT, generator=seeded(0), **SMALL).images for one in both]
    np.testing.assert_array_equal(images[0], images[1])


@pytest.mark.parametrize("shared", [False, True])
def test_calls_at_once_are_refused_and_the_first_is_recorded(shared, sd, tmp_path):
    begun, refused = threading.Event(), threading.Event()
    other: Any = diffusers.StableDiffusionImg2ImgPipeline(
        **sd.components, requires_safety_checker=False
    )
    errors: list[BaseException] = []

    def wait(*args: Any) -> dict[str, Any]:
        begun.set()
        assert refused.wait(60)
        return {}

    def beside() -> None:
        begun.wait(60)
        try:
            (other if shared else sd)(PROMPT)
        except BaseException as error:
            errors.append(error)
        refused.set()

    thread = threading.Thread(target=beside)
    with record(sd, tmp_path / "run.zarr"), record(other, tmp_path / "other.zarr"):
        thread.start()
        sd(PROMPT, **SMALL, callback_on_step_end=wait)
        thread.join()
        other(PROMPT, image=torch.rand(1, 3, 16, 24), num_inference_steps=3)
    (error,) = errors
    assert isinstance(error, UnsupportedPipelineError)
    assert "another call of a recorded StableDiffusionPipeline is running the UNet2D" in str(error)
    assert opened(tmp_path / "run.zarr").done.values.tolist() == [True]
