"""On every pipeline that `record` takes, an edit changes what it names and nothing else, and goes again."""

from typing import Any

import pytest
import torch

from stepscope.hooks import Edit, Scale, edit
from stepscope.hooks.clock import denoiser_of
from stepscope.hooks.errors import UnsupportedPipelineError
from stepscope.hooks.families import blocks_of
from tests.every_pipeline import modules
from tests.every_pipeline_calls import Call, has_call
from tests.every_pipeline_made import arguments_of, pipeline_of, variants
from tests.every_pipeline_outcome import differing, outcome, wires
from tests.every_pipeline_table import representative
from tests.oracle_watch import Pass, Watch

NAMES = [name for name in sorted(modules()) if has_call(name)]
OTHERS = [call for name in NAMES for call in variants(name) if call != representative(name)]


def sites_of(seen: Pass) -> list[tuple[str, torch.Tensor]]:
    """Names and values of a pass's sites, in the order in which they ran."""
    return [
        (f"{block}.{quantity}.{stream}", values)
        for (quantity, block), streams in seen.outputs.items()
        for stream, values in streams.items()
    ]


def watched(pipe: Any, call: Call, *edits: Edit) -> Watch:
    arguments = arguments_of(call)  # embeddings are made by another call of the class
    with edit(pipe, edits), Watch(pipe).on() as watch:
        pipe(**arguments)
    return watch


def equal(one: Any, other: Any) -> bool:
    return torch.equal(one, other) and bool((torch.signbit(one) == torch.signbit(other)).all())


def zeroed(then: torch.Tensor, now: torch.Tensor, tokens: torch.Tensor) -> int:
    """In how many branches of a pass of two images the second one's tokens are 0; nothing else differs."""
    branches = 0
    for one, other in zip(then.split(2), now.split(2), strict=True):
        edited = one.clone()
        edited[1, tokens] = 0.0
        branches += equal(edited, other)
        assert equal(edited, other) or equal(one, other), "an edit reaches beyond its place"
    return branches


class Broken(Exception):
    pass


def breaks(*seen: Any) -> torch.Tensor:
    raise Broken


def left_by_an_error(call: Call, *, edited: bool) -> dict[str, Any]:
    """What stands in a pipeline whose call ended at its first attention: in an edit, or in a plain hook."""
    pipe, arguments = pipeline_of(call), arguments_of(call)
    if edited:
        with pytest.raises(Broken), edit(pipe, Edit("*.attention.image", breaks)):
            pipe(**arguments)
        return wires(pipe)
    attention = blocks_of(denoiser_of(pipe))[0].sites[0].module
    handle = attention.register_forward_hook(breaks)
    with pytest.raises(Broken):
        pipe(**arguments)
    handle.remove()
    return wires(pipe)


@pytest.mark.parametrize(
    "call",
    [
        *(representative(name) for name in NAMES[::2]),
        *(pytest.param(representative(name), marks=pytest.mark.slow) for name in NAMES[1::2]),
        *(pytest.param(call, marks=pytest.mark.slow) for call in OTHERS),
    ],
    ids=str,
)
def test_an_edit_does_what_it_says_and_nothing_else(call, tmp_path):
    try:
        plain = watched(pipeline_of(call), call)
    except UnsupportedPipelineError:
        assert outcome(call, tmp_path).refused, "record takes what edit refuses"
        return
    seen = [name for name, _ in sites_of(plain.steps[-1].passes[0])]
    images = [name for name in seen if name.endswith("attention.image")]
    chosen, last = images[len(images) // 2], len(plain.steps) - 1
    # of the second image alone, at every second token, in one branch
    tokens = torch.arange(dict(sites_of(plain.steps[-1].passes[0]))[chosen].shape[1]) % 2 == 0
    narrow: dict[str, Any] = {"rows": [1], "tokens": tokens.numpy(), "branch": "positive"}
    zero = Edit(chosen, Scale(0.0), steps=(last, None), **narrow)
    edited = watched(pipeline_of(call), call, Edit("*", Scale(1.0)), zero)
    # Everything times 1, until the last step: bit for bit nothing.
    for then, now in zip(plain.steps[:last], edited.steps[:last], strict=True):
        assert equal(then.output, now.output)
        assert equal(then.after, now.after)
    for then, now in zip(plain.steps[last].control, edited.steps[last].control, strict=True):
        assert all(equal(values, dict(sites_of(then))[name]) for name, values in sites_of(now))
    touched = 0
    for then, now in zip(plain.steps[last].passes, edited.steps[last].passes, strict=True):
        # a second pass of self-attention guidance starts from what the first one made
        if not equal(then.sample, now.sample):
            continue
        unedited = dict(sites_of(then))
        for name, values in sites_of(now):
            if name == chosen:
                touched += zeroed(unedited[name], values, tokens)
                break
            assert equal(values, unedited[name]), f"{name} is upstream and changed"
    assert touched == 1, "one branch is edited, once"
    assert not torch.equal(plain.steps[last].output, edited.steps[last].output)
    after, reference = (left_by_an_error(call, edited=edited) for edited in (True, False))
    assert after == reference, differing(after, reference)
