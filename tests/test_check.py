"""`probes.check` finds that recording holds on models that are as they should be, and fails on others."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from hooks import Finding, verify
from hooks.errors import UnsupportedPipelineError
from probes import models
from probes.check import check, main
from tests.cases import CASES, PROMPT, Case
from tests.shell import infused, listed, study_of, tiny

CHAIN = "a block's output plus the adapter's residual is the next block's input"
SPLIT = "attention outputs split into the streams that they are named for"
NORMS = "stored norms are those of the raw tensors"
BRANCHES = "the branches are positive and negative, in that order"
BYTES = "recording on and off give the same bytes"
GUIDED = {"true_cfg": 2.0, "negative_prompt": "sketch"}


def failing(findings: list[Finding]) -> list[str]:
    return [finding.claim for finding in findings if not finding.holds]


@pytest.mark.parametrize("guided", [{}, GUIDED], ids=["plain", "true CFG"])
@pytest.mark.parametrize("words_of", [tiny, infused])
def test_every_claim_holds_on_the_reference_models(words_of, guided, face):
    words = words_of(faces=listed(face), seeds="[0,1]", batch_size=2, **guided)
    findings = check(study_of(words))
    claims = [CHAIN, SPLIT, NORMS, *([BRANCHES] if guided else []), BYTES]
    assert [finding.claim for finding in findings] == claims
    assert not failing(findings), findings


def test_every_claim_holds_on_every_pipeline(case):
    assert not failing(verify(case.pipe, lambda: case(seeds=(0, 1), steps=2)))


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


def test_compiled_pipeline_is_refused(spoilt):
    case = CASES["flux"]
    pipe = spoilt(case)
    pipe.transformer.transformer_blocks[0].compile(backend="eager")
    with pytest.raises(UnsupportedPipelineError, match="was compiled before recording"):
        verify(pipe, images(case, pipe))


def test_command_prints_every_claim(typed):
    answer = typed(tiny(), main=main)
    assert (answer.status, answer.err) == (0, "")
    assert [line[:6] for line in answer.out.splitlines()] == ["ok    "] * 4


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
