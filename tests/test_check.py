"""`probes.check` finds that recording holds on models that are as they should be, and fails on others."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import FluxKontextPipeline
from diffusers.hooks import PyramidAttentionBroadcastConfig
from PIL import Image

from stepscope.hooks import (
    Edit,
    Finding,
    StepscopeWarning,
    families,
    observe,
    order,
    support,
    verify,
)
from stepscope.hooks.edits import changes, editing, lens
from stepscope.hooks.edits.sites import Sites
from stepscope.hooks.errors import UnsupportedPipelineError
from stepscope.hooks.families import unet
from stepscope.hooks.families.flux import FLUX
from stepscope.hooks.families.unet import UNET
from stepscope.hooks.massive import Channels
from stepscope.hooks.texts import Encoded, Texts
from stepscope.probes import models
from stepscope.probes.check import check, main
from tests.cases import CASES, PROMPT, Case
from tests.every_pipeline_image_prompt import load_image_prompt
from tests.models import stable_diffusion
from tests.shell import infused, listed, study_of, tiny

CHAIN = "a block's output plus the adapter's residual is the next block's input"
SPLIT = "attention outputs split into the streams that they are named for"
NORMS = "stored norms are those of the raw tensors"
FINITE = "every number is finite"
COMPUTED = "every attention computed what it returned"
ADDED = "a contribution is what switching the adapter off changes there"
BRANCHES = "the branches are what they are named"
BYTES = "recording on and off give the same bytes"
EDITS = [
    "an edit that multiplies by 1 gives the same bytes",
    "an edited site reads as asked, and what comes after it is changed",
    "everything before an edited site is unchanged",
    "an edit of some rows, tokens or one branch leaves the others there as they were",
    "nothing of an edit is left after an error",
]
GUIDED = {"true_cfg": 2.0, "negative_prompt": "sketch"}


def failing(findings: list[Finding]) -> list[str]:
    return [finding.claim for finding in findings if not finding.holds]


@pytest.mark.parametrize(
    ("words_of", "guided"),
    [
        pytest.param(tiny, {}, id="tiny", marks=pytest.mark.slow),
        pytest.param(tiny, GUIDED, id="tiny, true CFG", marks=pytest.mark.slow),
        pytest.param(infused, {}, id="infused"),
        pytest.param(infused, GUIDED, id="infused, true CFG", marks=pytest.mark.slow),
    ],
)
def test_every_claim_holds_on_the_reference_models(words_of, guided, face):
    words = words_of(faces=listed(face), seeds="[0,1]", batch_size=2, **guided)
    findings = check(study_of(words))
    some = [*([ADDED] if words_of is infused else []), *([BRANCHES] if guided else [])]
    claims = [CHAIN, SPLIT, COMPUTED, FINITE, NORMS, *some, BYTES, *EDITS]
    assert [finding.claim for finding in findings] == claims
    assert not failing(findings), findings


def test_every_claim_holds_on_every_pipeline(case):
    assert not failing(verify(case.pipe, lambda: case(seeds=(0, 1), steps=2)))


def test_numbers_that_are_not_finite_are_found_and_named():
    case = CASES["flux_cfg"]

    def spoil(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        return {"latents": values["latents"] * torch.nan}

    with pytest.warns(StepscopeWarning, match="not finite"):
        findings = verify(case.pipe, lambda: case(steps=2, callback_on_step_end=spoil))
    found = {finding.claim: finding for finding in findings}
    assert not found[FINITE].holds
    assert "sample 0: latents at step 1" in found[FINITE].detail
    assert found[NORMS].holds


@pytest.fixture
def spoilt() -> Callable[[Case], Any]:
    """`spoilt(case)`: its pipeline with a denoiser of its own, that a test may break."""

    def of(case: Case) -> Any:
        pipe = copy.copy(case.pipe)
        pipe.transformer = copy.deepcopy(pipe.transformer)
        return pipe

    return of


def images(case: Case, pipe: Any) -> Callable[[], Any]:
    """A call of the case's with another pipeline than its own, and as many tokens of text as of image."""
    call = case.call | case.size | {"max_sequence_length": 24}

    def run() -> Any:
        seed = torch.Generator().manual_seed(0)
        return pipe(
            prompt=PROMPT, num_inference_steps=2, generator=seed, output_type="np", **call
        ).images

    return run


def is_recorded(module: Any) -> bool:
    """More hooks than the one that spoils it."""
    return len(module._forward_hooks) > 1


def test_block_that_computes_something_else_while_it_is_recorded_is_found(spoilt):
    case = CASES["flux"]
    pipe = spoilt(case)

    def brighten(module: Any, args: Any, output: Any) -> Any:
        return tuple(t * 1.5 for t in output) if is_recorded(module) else output

    pipe.transformer.transformer_blocks[1].register_forward_hook(brighten)
    assert BYTES in failing(verify(pipe, images(case, pipe)))


def test_streams_in_another_order_are_found(spoilt):
    """A library whose single blocks see [image; text] and whose double ones return (image, text)."""
    case = CASES["flux"]
    pipe = spoilt(case)

    def swap(module: Any, args: Any, output: Any) -> Any:
        return output[1], output[0]

    for block in pipe.transformer.transformer_blocks:
        block.attn.register_forward_hook(swap)
    assert SPLIT in failing(verify(pipe, images(case, pipe)))


def test_something_between_two_blocks_is_found(spoilt):
    case = CASES["flux"]
    pipe = spoilt(case)

    def shift(module: Any, args: Any, kwargs: Any) -> Any:
        return args, kwargs | {"hidden_states": kwargs["hidden_states"] + 0.1}

    pipe.transformer.single_transformer_blocks[0].register_forward_pre_hook(
        shift, with_kwargs=True, prepend=True
    )
    assert CHAIN in failing(verify(pipe, images(case, pipe)))


def found_in(case: Case) -> list[str]:
    return failing(verify(case.pipe, lambda: case(seeds=(0, 1), steps=2)))


def test_branches_that_are_exchanged_are_found(monkeypatch):
    """A library that puts the prompt's half of the batch first."""
    case = CASES["sd_cfg"]
    first = {**UNET.pipelines, "StableDiffusionPipeline": lambda seen: ("positive", "negative")}
    monkeypatch.setattr(families, "FAMILIES", [replace(UNET, pipelines=first)])
    assert found_in(case) == [BRANCHES]


def test_padding_that_is_counted_as_text_is_found(monkeypatch):
    case = CASES["flux"]
    monkeypatch.setattr(Texts, "of", lambda self, embeds: Encoded(None, (16, 16)))
    assert found_in(case) == [NORMS]


def test_reference_tokens_that_are_counted_as_the_image_are_refused(monkeypatch):
    """Taken for a wider image they would be in its norms: the scheduler's latents tell."""
    pipe: Any = FluxKontextPipeline(**CASES["flux"].pipe.components)
    pipe.set_progress_bar_config(disable=True)

    def call() -> Any:
        seed, photo = torch.Generator().manual_seed(0), Image.new("RGB", (48, 32))
        return pipe(
            image=photo,
            prompt=PROMPT,
            height=32,
            width=48,
            max_area=32 * 48,
            num_inference_steps=2,
            max_sequence_length=16,
            _auto_resize=False,
            generator=seed,
            output_type="np",
        ).images

    assert not failing(verify(pipe, call))

    def all_image(args: Any, kwargs: Any) -> Any:
        tokens = FLUX.tokens(args, kwargs)
        return tokens._replace(image=tokens.image + tokens.reference, reference=0)

    monkeypatch.setattr(families, "FAMILIES", [replace(FLUX, tokens=all_image)])
    with pytest.raises(UnsupportedPipelineError, match="steps 24 tokens, and 48"):
        verify(pipe, call)


def test_image_prompt_that_is_counted_as_text_is_found(monkeypatch):
    pipe = stable_diffusion()
    load_image_prompt(pipe.unet)

    def call() -> Any:
        seed, embeds = torch.Generator().manual_seed(0), torch.ones(2, 1, 32)
        return pipe(
            prompt=PROMPT,
            ip_adapter_image_embeds=[embeds],
            height=16,
            width=24,
            num_inference_steps=2,
            generator=seed,
            output_type="np",
        ).images

    assert not failing(verify(pipe, call))
    monkeypatch.setattr(unet, "text_and_image_prompt", lambda module, args, kwargs, out: (out,))
    assert failing(verify(pipe, call)) == [SPLIT, ADDED, EDITS[0]]


def test_values_of_an_earlier_step_are_found(monkeypatch):
    """Pyramid attention broadcast, if nothing refused it."""
    case = CASES["flux"]
    monkeypatch.setattr(support, "_check_no_cache", lambda part, model: None)
    denoiser: Any = case.denoiser
    denoiser.enable_cache(
        PyramidAttentionBroadcastConfig(
            spatial_attention_block_skip_range=2,
            spatial_attention_timestep_skip_range=(-1, 1001),
            current_timestep_callback=lambda: 500,
        )
    )
    try:
        assert COMPUTED in failing(verify(case.pipe, lambda: case(seeds=(0, 1), steps=3)))
    finally:
        denoiser.disable_cache()


def test_massive_channels_that_are_not_left_out_are_found(monkeypatch):
    monkeypatch.setattr(observe, "Channels", lambda massive: Channels(massive - 1))
    assert found_in(CASES["flux"]) == [NORMS]


def test_edits_that_are_not_what_they_say_are_found(monkeypatch):
    """Values that are written twice, that are written where none are asked for, and hooks that stay."""
    case = CASES["sd"]
    assert found_in(case) == []
    write = lens._write

    def twice(*args: Any) -> None:
        write(*args)
        write(*args)

    with monkeypatch.context() as patch:
        patch.setattr(lens, "_write", twice)
        assert found_in(case) == [EDITS[1]]
    with monkeypatch.context() as patch:
        patch.setattr(Sites, "chosen", lambda self, edit: self.names)
        assert found_in(case) == EDITS[1:4]
    handles: list[Any] = []

    class Stays:
        def remove(self) -> None:
            pass

    def keep(handle: Any) -> Any:
        handles.append(order.before_readers(handle))
        return Stays()

    with monkeypatch.context() as patch:
        patch.setattr(editing, "before_readers", keep)
        assert found_in(case)[-1] == EDITS[4]
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("ignored", ["rows", "tokens", "branch"])
def test_edits_of_more_than_the_rows_tokens_or_branch_that_they_name_are_found(
    ignored, monkeypatch
):
    case = CASES["sd_cfg"]
    change = lens.change

    def of_all(now: Any, edit: Edit, *more: Any) -> bool:
        return change(now, replace(edit, **{ignored: None}), *more)

    monkeypatch.setattr(changes, "change", of_all)
    (wrong,) = (f for f in verify(case.pipe, lambda: case(seeds=(0, 1), steps=2)) if not f.holds)
    assert wrong.claim == EDITS[3]
    told = {"rows": "row 1 of 2", "branch": "one branch of 2"}.get(ignored, "12 of 24 tokens")
    assert wrong.detail.endswith(f"others changed, or these did not, of {told}")


def test_what_a_call_has_no_parts_of_is_not_tried():
    case = CASES["sd"]
    found = {one.claim: one for one in verify(case.pipe, lambda: case(seeds=(0,), steps=2))}
    assert found[EDITS[3]].holds
    assert found[EDITS[3]].detail.endswith("tokens")
    assert "row" not in found[EDITS[3]].detail


def test_compiled_pipeline_is_refused(spoilt):
    case = CASES["flux"]
    pipe = spoilt(case)
    pipe.transformer.transformer_blocks[0].compile(backend="eager")
    with pytest.raises(UnsupportedPipelineError, match="is compiled, and hooks inside"):
        verify(pipe, images(case, pipe))


def test_an_adapter_that_is_off_is_no_fault():
    case = CASES["infusenet_cfg"]
    findings = verify(case.pipe, lambda: case(steps=2, controlnet_conditioning_scale=0.0))
    assert [finding for finding in findings if not finding.holds] == []


def test_command_prints_every_claim(typed):
    answer = typed(tiny(), main=main)
    assert (answer.status, answer.err) == (0, "")
    assert [line[:6] for line in answer.out.splitlines()] == ["ok    "] * 11


def test_command_fails_where_a_claim_does(typed, monkeypatch):
    load = models.load

    def spoil(*args: Any) -> Any:
        loaded = load(*args)

        def brighten(module: Any, args: Any, output: Any) -> Any:
            return tuple(t * 1.5 for t in output) if is_recorded(module) else output

        loaded.pipe.transformer.transformer_blocks[1].register_forward_hook(brighten)
        return loaded

    monkeypatch.setattr(models, "load", spoil)
    answer = typed(tiny(), main=main)
    assert answer.status == 2
    assert f"FAILS {BYTES}" in answer.out
    assert "claims do not hold here: do not record" in answer.line
