"""`edits=[...]` of `python -m probes`: made, written down, continued, and refused before models load."""

import json
from typing import Any

import numpy as np
import pytest
import xarray as xr

from stepscope.hooks.attributes import unpacked
from stepscope.hooks.errors import StepscopeError
from stepscope.probes import models
from stepscope.probes.rereading import study_of as study_of_run
from tests.shell import infused, listed, tiny

ZERO = 'edits=[{sites: "double.*.adapter", do: zero, steps: [0, 1]}]'


@pytest.fixture
def without_models(monkeypatch) -> None:
    """Nothing is loaded."""

    def load(*args: Any) -> Any:
        pytest.fail("models are loaded")

    monkeypatch.setattr(models, "load", load)


def test_a_run_with_edits_is_made_and_says_so(typed, tmp_path, face, monkeypatch):
    words = infused(faces=listed(face), seeds="[0,1]", batch_size=2, out=tmp_path / "run.zarr")
    swap = '{sites: "single.00.attention.image", do: swap, source: [0], rows: [1]}'
    words.append(ZERO.replace("}]", "}, " + swap + "]"))
    assert typed(words).status == 0
    run = xr.open_zarr(tmp_path / "run.zarr").load()
    doubles = [block for block in run.block.values if block.startswith("double")]
    added = run.contribution.isel(branch=0).swap_dims(injection="injection_block")
    assert (added.sel(injection_block=doubles)[:, 0] == 0).all()
    assert (added.sel(injection_block=doubles)[:, 1] > 0).all()
    assert (added.sel(injection_block="single.00") > 0).all()
    norms = run.attention_norm.sel(block="single.00", stream="image").isel(branch=0)
    np.testing.assert_array_equal(norms[0], norms[1])
    zero = {"sites": ["double.*.adapter"], "do": "Scale", "factor": 0.0, "steps": [0, 1]}
    other = {"sites": ["single.00.attention.image"], "do": "Swap", "source": [0], "rows": [1]}
    assert unpacked(run.attrs)["edits"] == [zero, other]
    assert [json.loads(told) for told in run.edits.values] == [[zero], [zero, other]]
    assert unpacked(run.attrs)["configuration"]["edits"][0] == {
        "sites": ["double.*.adapter"],
        "do": "zero",
        "steps": [0, 1],
    }
    again = typed(words)
    assert "nothing to do" in again.out
    answer = typed([*words[:-1], ZERO])
    assert answer.status == 2
    assert "was made with another configuration: edits: [" in answer.line
    with pytest.raises(StepscopeError, match="recorded with edits"):
        study_of_run(unpacked(run.attrs)["configuration"], {})


def test_a_run_that_was_stopped_is_continued_with_its_edits(typed, tmp_path, face):
    words = [*infused(faces=listed(face), seeds="[0,1]", out=tmp_path / "whole.zarr"), ZERO]
    assert typed(words).status == 0
    whole = xr.open_zarr(tmp_path / "whole.zarr").load()
    sample = models.Models.sample
    made: list[int] = []

    def stop(*args: Any, **kwargs: Any) -> Any:
        if made:
            raise KeyboardInterrupt
        made.append(1)
        return sample(*args, **kwargs)

    other = [word.replace("whole.zarr", "other.zarr") for word in words]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models.Models, "sample", stop)
        assert typed(other).status == 130
    assert typed(other).status == 0
    run = xr.open_zarr(tmp_path / "other.zarr").load()
    assert run.done.values.tolist() == [True, True]
    for name in ("latents", "image", "contribution", "edits"):
        np.testing.assert_array_equal(run[name].values, whole[name].values)


@pytest.mark.parametrize(
    ("window", "edits"),
    [
        pytest.param(
            "[0,1]",
            '[{sites: "*.adapter", do: zero, steps: [1, null]}]',
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "[1,3]", '[{sites: "*.adapter", do: zero, steps: [0, 1]}]', marks=pytest.mark.slow
        ),
        (
            "[1,2]",
            '[{sites: "*.adapter", do: zero, steps: [0, 1]}, '
            '{sites: "*.adapter", do: zero, steps: [2, 3]}]',
        ),
    ],
    ids=["the first", "from the second on", "the second alone"],
)
def test_an_adapter_edited_away_outside_of_a_window_is_one_with_that_window(
    window, edits, typed, face, tmp_path
):
    """Where the window ends, its network is not run; zeros that are added to the stream change no bit."""
    words = {"faces": listed(face), "steps": 3, "guidance": 3.5}
    runs = []
    for name, own in (
        ("window", {"adapter__window": window, "adapter__window_unit": "step"}),
        ("edits", {"edits": edits}),
    ):
        assert typed(infused(out=tmp_path / f"{name}.zarr", **words, **own)).status == 0
        runs.append(xr.open_zarr(tmp_path / f"{name}.zarr").load())
    for name in ("latents", "image", "attention_norm", "contribution"):
        np.testing.assert_array_equal(*(run[name].values for run in runs), err_msg=name)


@pytest.mark.parametrize(
    ("words", "refusal"),
    {
        '[{sites: "duoble.*.adapter", do: zero}]': "no site matches 'duoble.*.adapter'",
        '[{sites: "double.00.atention.image", do: zero}]': "did you mean 'double.00.attention.image'",
        '[{sites: "*.adapter", do: zeros}]': "no do='zeros'; did you mean 'zero'",
        '[{sites: "*.adapter", do: zero, factor: 2}]': "do=zero asks for nothing more, and factor is given",
        '[{sites: "*.adapter", do: scale}]': "do=scale asks for factor, and nothing is given",
        '[{sites: "*.adapter", do: swap}]': "do=swap asks for source or run and sample",
        '[{sites: "*.adapter", do: zero, stps: [0, 1]}]': "no configuration key 'edits.0.stps'",
        '[{sites: "*.adapter", do: zero, steps: [0, 9]}]': "steps=(0, 9), and the call runs 2 steps",
        '[{sites: "*.adapter", do: zero, steps: [1, 1]}]': "steps=(1, 1) is empty",
        '[{sites: "*.adapter", do: zero, sigmas: [0.1, 0.0]}]': "its 2 steps begin at sigma 1, 0.",
        '[{sites: "*.adapter", do: zero, branch: negative}]': "no branch 'negative', it has positive",
        '[{sites: "*.adapter", do: zero, rows: [1]}]': "no row 1 in a batch of 1 (1 samples, batch_size=1)",
        '[{sites: "*.adapter", do: swap, source: [1]}]': "no row 1 in a batch of 1",
        '[{sites: "*.adapter", do: mean, run: nowhere.zarr}]': "nowhere.zarr is not a run",
        "[{sites: double.00.residual.image, do: add, direction: no.npy, amount: 1}]": "no file 'no.npy'",
        "zero": "edits.0='zero'",
    }.items(),
    ids=str,
)
def test_words_that_cannot_fit_are_refused_before_models_load(
    words, refusal, typed, face, without_models
):
    answer = typed(infused(faces=listed(face), edits=words))
    assert answer.status == 2
    assert refusal in answer.line


@pytest.mark.parametrize(
    ("changed", "refusal"),
    [
        ({"steps": 3}, "another schedule: 2 steps at sigmas 1 to"),
        ({"height": 32}, "was recorded with latents of"),
        ({"max_sequence_length": 16}, "of 32 channels in"),
    ],
)
def test_a_transplant_that_cannot_fit_is_refused_before_models_load(
    changed, refusal, typed, tmp_path, monkeypatch
):
    site, donor = "double.01.attention.text", tmp_path / "donor.zarr"
    if "max_sequence_length" not in changed:
        site = "double.01.attention.image"
    schnell = {"backbone": "schnell", "guidance": None}  # whose schedule is that of every size
    kept = schnell | {"record": "full", "record__sites": f"['{site}']", "out": donor}
    assert typed(tiny(**kept)).status == 0
    monkeypatch.setattr(models, "load", lambda *args: pytest.fail("models were loaded"))
    edits = f"[{{sites: {site}, do: swap, run: {donor}, sample: 0}}]"
    answer = typed(tiny(edits=edits, out=tmp_path / "run.zarr", **schnell, **changed))
    assert answer.status == 2
    assert refusal in answer.line


@pytest.mark.parametrize(
    ("changed", "edits", "refusal"),
    [
        ({"adapter__scale": 0}, "", "the adapter is on in no step (adapter.scale=0.0"),
        (
            {"true_cfg": 2, "negative_prompt": "sketch"},
            ", branch: negative",
            "as in InfiniteYou",
        ),
        (
            {"adapter__window": "[0,0.5]", "steps": 4},
            ", steps: [2, 4]",
            "in steps 2 to 3: the adapter is on in steps 0 to 1 (adapter.scale=1.0",
        ),
    ],
)
def test_edits_of_an_adapter_that_is_off_are_refused(
    changed, edits, refusal, typed, face, without_models
):
    entry = f'[{{sites: "*.adapter", do: zero{edits}}}]'
    answer = typed(infused(faces=listed(face), edits=entry, **changed))
    assert answer.status == 2
    assert refusal in answer.line


def test_the_plan_says_what_is_edited(typed, face, without_models):
    answer = typed(infused(faces=listed(face)), ZERO, "--dry")
    told = 'edit: {"sites": ["double.*.adapter"], "do": "Scale", "factor": 0.0, "steps": [0, 1]}'
    assert told in answer.out.splitlines()


def test_without_an_adapter_there_is_no_edge_of_one(typed, without_models):
    answer = typed(tiny(edits='[{sites: "*.adapter", do: zero}]'))
    assert "the pipeline has no ControlNet (or InfuseNet)" in answer.line


def test_a_run_without_edits_has_the_configuration_that_it_always_had(without_models):
    from stepscope.probes.provenance import configuration
    from tests.shell import study_of

    assert "edits" not in configuration(study_of(tiny()))
