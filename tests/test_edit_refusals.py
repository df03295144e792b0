"""An edit that touches nothing or does not fit is refused as early as it can be known, and told why."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stepscope.hooks import Add, Capture, Edit, Mean, Scale, Swap, edit, record
from stepscope.hooks.errors import EditError, UnsupportedPipelineError
from stepscope.hooks.store import Run
from tests.cases import CASES, PROMPT, wiring
from tests.models import PIPELINES
from tests.small import FLUX_SMALL, SMALL, opened

SITE = "double.01.attention.image"
PAIR: dict[str, Any] = {"seeds": (0, 1)}
OFF = Scale(0.0)

WRONG: Any = Edit
"""With values that are of no type that it takes."""

NEVER = {
    "no edit names a site": (lambda: Edit((), OFF), "names no site: sites='double"),
    "a word": (lambda: WRONG(SITE, "zero"), r"do='zero' is no operation: Scale\(0\.0\), Mean"),
    "a class": (lambda: WRONG(SITE, Scale), r"is no operation"),
    "two windows": (lambda: WRONG(SITE, OFF, steps=(0, 1), sigmas=(1, 0)), "name one of the two"),
    "a window of one": (
        lambda: WRONG(SITE, OFF, steps=(3,)),
        r"steps=\(3,\): name two numbers, a start and an end",
    ),
    "an empty window": (lambda: Edit(SITE, OFF, steps=(2, 2)), r"steps=\(2, 2\) is empty"),
    "before the run": (lambda: Edit(SITE, OFF, steps=(-1, 2)), "counted from 0"),
    "rising sigmas": (lambda: Edit(SITE, OFF, sigmas=(0.1, 0.9)), "sigma falls along a run"),
    "a branch": (
        lambda: Edit(SITE, OFF, branch="postive"),
        "no branch 'postive'; did you mean 'pos",
    ),
    "no rows": (lambda: Edit(SITE, OFF, rows=()), "name rows of the batch from 0"),
    "a row twice": (lambda: Edit(SITE, OFF, rows=(1, 1)), "each once"),
    "tokens": (lambda: Edit(SITE, OFF, tokens="txt"), "no tokens 'txt'; did you mean 'text'"),
    "a mask of numbers": (lambda: Edit(SITE, OFF, tokens=[0, 3]), "true or false for each token"),
    "an empty mask": (lambda: Edit(SITE, OFF, tokens=[False] * 24), "would touch nothing"),
    "a run alone": (lambda: Swap("run.zarr"), r"names no sample of the run: Swap\('run.zarr', 0\)"),
    "rows and a sample": (lambda: Swap((1, 0), 2), "name rows of the batch"),
    "no length": (lambda: Add(np.zeros(32), 1.0), "no length"),
    "a cube": (lambda: Add(np.ones((2, 3, 4)), 1.0), r"got \(2, 3, 4\)"),
    "a factor that is not finite": (lambda: Scale(float("nan")), "Scale: nan is not a finite"),
    "a factor in words": (lambda: WRONG(SITE, Scale("0")), "Scale: '0' is not a finite number"),  # pyright: ignore[reportArgumentType]
    "an amount": (lambda: Add(np.ones(32), float("inf")), "amount: inf is not a finite"),
    "half a step": (lambda: WRONG(SITE, OFF, steps=(0.5, 2)), "steps: 0.5 is not a whole number"),
    "a row that is no number": (
        lambda: WRONG(SITE, OFF, rows=(True,)),
        "rows: True is not a whole",
    ),
    "rows as fractions": (lambda: Swap((1.0, 0.0)), "Swap: 1.0 is not a whole number"),  # pyright: ignore[reportArgumentType]
    "no sample": (lambda: Swap("run.zarr", []), "names no sample"),
    "no file": (lambda: Add("nowhere.npy", 1.0), "no file 'nowhere.npy'"),
}


@pytest.mark.parametrize(("make", "words"), NEVER.values(), ids=list(NEVER))
def test_a_value_that_can_never_fit_is_refused_where_it_is_made(make, words, unchecked):
    with pytest.raises(EditError, match=words):
        make()


ENTRY = {
    "a site": (
        "flux",
        Edit("double.01.atention.image", OFF),
        "did you mean 'double.01.attention.im",
    ),
    "a block": ("flux", Edit("double.17.*", OFF), r"no site matches 'double.17.\*'"),
    "no adapter": ("flux", Edit("double.*.adapter", OFF), "the pipeline has no ControlNet"),
    "no image prompt": ("sd", Edit("*.attention.image_prompt", OFF), r"load_ip_adapter"),
    "a skip of FLUX": (
        "infusenet",
        Edit("skip.00.adapter", OFF),
        "did you mean 'single.00.adapter'",
    ),
    "no run": ("flux", Edit(SITE, Mean("nowhere.zarr")), "nowhere.zarr is not a run"),
}


@pytest.mark.parametrize(("name", "one", "words"), ENTRY.values(), ids=list(ENTRY))
def test_what_the_pipeline_does_not_have_is_refused_on_entry(name, one, words):
    pipe = CASES[name].pipe
    before = wiring(pipe)
    with pytest.raises(EditError, match=words), edit(pipe, [Edit("*.residual.image", OFF), one]):
        pytest.fail("entered")
    assert wiring(pipe) == before


CALL: dict[str, tuple[str, Edit, str, dict[str, Any]]] = {
    "a window after the run": (
        "flux",
        Edit(SITE, OFF, steps=(2, 9)),
        r"steps=\(2, 9\), and the call runs 3 steps, 0 to 2: \(2, 3\) ends with them",
        {},
    ),
    "a window of sigma": (
        "flux",
        Edit(SITE, OFF, sigmas=(0.2, 0.1)),
        "steps begin at sigma 1,",
        {},
    ),
    "a row": (
        "flux",
        Edit(SITE, OFF, rows=(2,)),
        "no row 2 in this call's batch of 2; rows 0 to 1",
        {},
    ),
    "a row to swap": ("flux", Edit(SITE, Swap((1, 2))), "no row 2 in a batch of 2", {}),
    "too few rows": ("flux", Edit(SITE, Swap((0,))), r"names 1 for the 2 rows \[0, 1\]", {}),
    "no negative": (
        "flux",
        Edit(SITE, OFF, branch="negative"),
        "this call has no pass of the branch 'negative'; it runs positive",
        {},
    ),
    "no guidance": (
        "sd_cfg",
        Edit("mid.00.00.attention.image", OFF, branch="negative"),
        "this call has no pass of the branch 'negative'",
        {"guidance_scale": 1.0},
    ),
    "an adapter at scale 0": (
        "flux_controlnet",
        Edit("double.01.adapter", OFF),
        r"the adapter is off in this call \(controlnet_conditioning_scale=0.0\)",
        {"controlnet_conditioning_scale": 0.0},
    ),
}


@pytest.mark.parametrize("name", ["flux_controlnet", "sd_controlnet_cfg"])
def test_a_call_that_is_refused_before_recording_began_says_why(name, tmp_path):
    """The edit was entered first, and is told of the call first."""
    case = CASES[name]
    site = "double.01.adapter" if name == "flux_controlnet" else "skip.00.adapter"
    with edit(case.pipe, Edit(site, OFF)), record(case.pipe, tmp_path / "run.zarr"):
        with pytest.raises(EditError, match="the adapter is off in this call"):
            case(**PAIR, controlnet_conditioning_scale=0.0)
        case(**PAIR)
    assert opened(tmp_path / "run.zarr").sizes["sample"] == 2


@pytest.mark.parametrize(("name", "one", "words", "call"), CALL.values(), ids=list(CALL))
def test_what_the_call_does_not_have_is_refused_before_its_first_block(name, one, words, call):
    case = CASES[name]
    case(**PAIR)
    before, ran = wiring(case.pipe), []
    with edit(case.pipe, one):
        block = next(m for m in case.denoiser.modules() if type(m).__name__.endswith("Block"))
        handle = block.register_forward_hook(lambda *seen: ran.append(seen))
        with pytest.raises(EditError, match=words):
            case(**PAIR, **call)
        handle.remove()
        assert ran == []
        if name == "flux":  # another call may fit
            with pytest.raises(EditError, match=words):
                case(**PAIR)
    assert wiring(case.pipe) == before


SHAPES = {
    "a mask": (
        Edit(SITE, OFF, tokens=[True] * 23),
        f"mask of 23, and {SITE} has 24: 4 x 6 of the im",
    ),
    "a direction": (Edit(SITE, Add(np.ones(31), 1.0)), r"\(32,\) or \(24, 32\) fits"),
    "padding of an image": (
        Edit(SITE, OFF, tokens="padding"),
        "no tokens of 'padding': it has image",
    ),
    "references": (Edit(SITE, OFF, tokens="reference"), "no tokens of 'reference'"),
    "a function": (WRONG(SITE, lambda values, at: values[:, 1:]), "values of the same shape"),
    "no tensor": (
        WRONG(SITE, lambda values, at: None),
        r"was given \(2, 24, 32\) and made NoneType",
    ),
}


@pytest.mark.parametrize(("one", "words"), SHAPES.values(), ids=list(SHAPES))
def test_what_the_site_s_shape_does_not_fit_is_refused_in_the_first_pass(one, words, unchecked):
    case = CASES["flux"]
    with edit(case.pipe, one), pytest.raises(EditError, match=words):
        case(**PAIR, callback_on_step_end=lambda *a: pytest.fail("a step ended"))


def test_texts_of_other_lengths_are_not_swapped_token_by_token():
    case, site = CASES["flux"], "double.01.attention.text"
    prompts = ["a man", PROMPT]
    with edit(case.pipe, Edit(site, Swap((1, 0)), tokens="text")):
        with pytest.raises(EditError, match="rows whose texts have equal length"):
            case(**PAIR, prompt=prompts)
    with edit(case.pipe, Edit(site, Swap((1, 0)))):
        case(**PAIR, prompt=prompts)


def test_padding_of_embeddings_is_not_known():
    pipe = CASES["flux"].pipe
    embeds, pooled, _ = pipe.encode_prompt(PROMPT, None, max_sequence_length=16)
    given = {"prompt_embeds": embeds.clone(), "pooled_prompt_embeds": pooled}
    site = "double.01.attention.text"
    with (
        edit(pipe, Edit(site, OFF, tokens="padding")),
        pytest.raises(EditError, match="embeddings"),
    ):
        pipe(**given, output_type="np", **FLUX_SMALL)


@pytest.mark.parametrize(
    ("name", "why"), [("infusenet", "handed nothing over"), ("flux_controlnet", "all zeros")]
)
def test_an_adapter_that_is_off_in_the_window_is_found_at_its_end(name, why):
    case = CASES[name]
    call: dict[str, Any] = {"control_guidance_end": 0.4, "steps": 4}
    with edit(case.pipe, Edit("single.01.adapter", OFF, steps=(2, 3))):
        with pytest.raises(
            EditError, match=rf"edits\[0\] touched nothing at single.01.adapter.*{why}"
        ):
            case(**call)
    with edit(case.pipe, Edit("single.01.adapter", OFF, steps=(0, 3))):
        case(**call)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "run.zarr"
    with record(CASES["flux"].pipe, path, Capture("full", sites=("double.01.attention.*",))):
        CASES["flux"](**PAIR)
    return path


def transplant(name: str, one: Edit, **call: Any) -> str:
    """What is said of a transplant that does not fit."""
    case = CASES[name]
    with pytest.raises(EditError) as error, edit(case.pipe, one):
        case(callback_on_step_end=lambda *a: pytest.fail("a step ended"), **call)
    return str(error.value)


def test_a_transplant_from_another_run_than_fits_is_refused(whole, tmp_path):
    own, other = Swap(whole, 0), "double.02.attention.image"
    said = {
        "does not store the full tensor of double.02.attention.image": transplant(
            "flux", Edit(other, own)
        ),
        "no finished sample 5: there are 2, 0 to 1": transplant("flux", Edit(SITE, Swap(whole, 5))),
        "has no branch 'negative'; it has positive": transplant(
            "flux", Edit(SITE, own, branch="negative")
        ),
        "another schedule: 3 steps": transplant("flux", Edit(SITE, own), steps=4),
        "16 tokens of 32 channels": transplant(
            "flux", Edit(SITE.replace("image", "text"), own), max_sequence_length=24
        ),
        r"no run keeps double.01.adapter whole. Swap((1, 0))": transplant(
            "infusenet", Edit("double.01.adapter", own)
        ),
        "names 2 for the 1 rows": transplant("flux", Edit(SITE, Swap(whole, (0, 1)))),
    }
    assert [words for words, told in said.items() if words not in told] == []
    pipe = PIPELINES["flux"]()
    with torch.no_grad():
        pipe.transformer.proj_out.bias.add_(1.0)
    with (
        pytest.raises(EditError, match="recorded with another transformer"),
        edit(pipe, Edit(SITE, own)),
    ):
        pytest.fail("entered")


def test_a_loop_of_one_s_own_is_refused(sd):
    given = {
        "sample": torch.zeros(1, 4, 8, 12),
        "timestep": 1,
        "encoder_hidden_states": torch.zeros(1, 4, 32),
    }
    with pytest.raises(UnsupportedPipelineError, match="of this edit was run outside of a call"):
        with edit(sd, Edit("*.residual.image", OFF)):
            sd.unet(**given)


def test_an_error_within_a_call_leaves_the_record_of_the_others(tmp_path):
    case, path = CASES["flux"], tmp_path / "run.zarr"
    with edit(case.pipe, Edit(SITE, OFF, rows=(1,))), record(case.pipe, path):
        case(**PAIR)
        with pytest.raises(EditError, match="no row 1"):
            case()
        case(**PAIR)
    assert Run.open(path).done.tolist() == [True] * 4


def test_a_mask_is_of_the_images_rows_and_columns(unchecked):
    case = CASES["flux"]  # 4 x 6 tokens
    with edit(case.pipe, Edit(SITE, OFF, tokens=np.ones((4, 6), bool))):
        case()
    with pytest.raises(EditError, match=r"a mask of 6 x 4, and .* has 24: 4 x 6 of the image"):
        with edit(case.pipe, Edit(SITE, OFF, tokens=np.ones((6, 4), bool))):
            case()


def test_a_sample_of_an_image_of_other_sides_is_refused(tmp_path):
    """As many tokens, in other rows and columns."""
    case = CASES["flux"]
    path = tmp_path / "run.zarr"
    with record(case.pipe, path, Capture("full", sites=(SITE,))):
        case()
    y, x = case.size["height"], case.size["width"]
    with pytest.raises(
        EditError, match="with latents of 8 x 12, and this call's image tokens are 6 x 4"
    ):
        with edit(case.pipe, Edit(SITE, Swap(path, 0))):
            case(height=x, width=y)


def test_a_function_cannot_change_rows_that_the_edit_does_not_name():
    case = CASES["flux"]
    plain = case((0, 1))

    def clear(values: torch.Tensor, at: Any) -> torch.Tensor:
        at.batch.zero_()
        return values * 0.5

    with edit(case.pipe, Edit(SITE, clear, rows=(0,))):
        edited = case((0, 1))
    np.testing.assert_array_equal(edited[1], plain[1])
    assert not np.array_equal(edited[0], plain[0])


def test_an_adapter_that_another_edit_sets_to_zero_is_not_off():
    case, site = CASES["infusenet"], "double.00.adapter"
    plain = case()
    both = [Edit(site, OFF), Edit(site, lambda values, at: values + 1.0)]
    with edit(case.pipe, both):
        assert not np.array_equal(case(), plain)


def test_a_sample_of_which_no_step_of_the_window_ran_has_no_edit(tmp_path, sd):
    def stop(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        pipe._interrupt = True
        return values

    path, late = tmp_path / "run.zarr", Edit("mid.*.attention.image", OFF, steps=(1, 2))
    with pytest.warns(Warning, match="touched nothing"), record(sd, path), edit(sd, late):
        sd(PROMPT, **SMALL, callback_on_step_end=stop)
    assert opened(path).edits.values.tolist() == ["[]"]
