"""What a tool's own adapter adds: modules that its hooks run, told by `declare`."""

from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from stepscope.hooks import Edit, Scale, edit, record, verify
from stepscope.hooks.clock import Clock
from stepscope.hooks.edits.sites import Sites
from stepscope.hooks.errors import EditError, StepscopeError
from stepscope.hooks.injections import Declared, declare, injections_of, returned
from stepscope.hooks.injections import proof as proofs
from stepscope.hooks.injections.check import InjectionCheck
from stepscope.hooks.injections.meter import Meter
from stepscope.hooks.injections.residuals import Residuals
from tests.cases import CASES

WEIGHT = 0.7


@contextmanager
def attached(model: Any, start: int = 0):
    """A small PuLID: after double blocks 0 and 2, image += weight * module(image), from a pass on."""
    modules = [nn.Linear(32, 32) for _ in range(2)]
    for seed, module in enumerate(modules):
        generator = torch.Generator().manual_seed(seed)
        module.weight.data = torch.randn(32, 32, generator=generator) / 32
        module.requires_grad_(False)
    passes = [0]

    def hook(module: nn.Linear) -> Any:
        def add(block: Any, args: Any, output: Any) -> Any:
            if passes[0] <= start:
                return None
            return output[0], output[1] + WEIGHT * module(output[1])

        return add

    hooks = [model.register_forward_pre_hook(lambda m, a: passes.__setitem__(0, passes[0] + 1))]
    hooks += [
        model.transformer_blocks[i].register_forward_hook(hook(module))
        for i, module in zip((0, 2), modules, strict=True)
    ]
    try:
        yield modules
    finally:
        for one in hooks:
            one.remove()


def declared(modules: list[Any]) -> list[Declared]:
    return [
        Declared(
            "pulid",
            block,
            "image",
            module,
            added=lambda args, kwargs, output: WEIGHT * output,
            base=lambda args, kwargs, output: args[0],
        )
        for block, module in zip(("double.00", "double.02"), modules, strict=True)
    ]


def test_it_is_what_the_adapter_says_and_0_where_its_module_does_not_run(tmp_path):
    case = CASES["flux"]
    seen: list[torch.Tensor] = []
    with attached(case.denoiser, start=1) as modules, declare(case.pipe, declared(modules)):
        with record(case.pipe, tmp_path / "run.zarr"):
            hook = modules[1].register_forward_hook(
                lambda m, args, output: seen.append(WEIGHT * output.norm() / args[0].norm())
            )
            case()
            hook.remove()
    run = xr.open_zarr(tmp_path / "run.zarr").load()
    assert run.injection.values.tolist() == ["double.00.image.pulid", "double.02.image.pulid"]
    now = run.contribution.isel(sample=0, branch=0)
    assert (now[0] == 0).all()
    assert (now[1:] > 0).all()
    np.testing.assert_allclose(now[1:, 1], seen, rtol=1e-5)
    assert injections_of(case.denoiser) == []


def test_beside_a_controlnet_it_has_places_of_its_own(tmp_path):
    case = CASES["infusenet_cfg"]
    with attached(case.denoiser) as modules, declare(case.pipe, declared(modules)):
        with record(case.pipe, tmp_path / "run.zarr"):
            case(seeds=(0, 1))
    run = xr.open_zarr(tmp_path / "run.zarr").load()
    assert run.injection_adapter.values.tolist() == ["controlnet"] * 8 + ["pulid"] * 2
    assert (run.contribution > 0).all()


@contextmanager
def adding(case: Any, *names: str):
    """Adapters that each add what a module returns to double block 0's output, and declare it."""
    places = [
        Declared(name, "double.00", "image", nn.Linear(32, 32), returned, lambda a, k, o: a[0])
        for name in names
    ]

    def add(block: Any, args: Any, output: Any) -> Any:
        for place in places:
            output = output[0], output[1] + place.module(output[1])
        return output

    hook = case.denoiser.transformer_blocks[0].register_forward_hook(add)
    try:
        with declare(case.pipe, places):
            yield
    finally:
        hook.remove()


def test_what_modules_return_is_edited_by_name_or_together():
    """`<block>.adapter` is all that they add in the block."""
    case = CASES["flux"]
    with torch.random.fork_rng(), adding(case, "one", "other"):
        both = case()
        with edit(case.pipe, Edit("double.00.image.one", Scale(0.0))):
            one = case()
        with edit(case.pipe, Edit(("double.00.image.one", "double.00.image.other"), Scale(0.0))):
            neither = case()
        with edit(case.pipe, Edit("double.00.adapter", Scale(0.0))):
            np.testing.assert_array_equal(case(), neither)
    np.testing.assert_array_equal(neither, case())
    assert (one != both).any()
    assert (one != neither).any()


def test_beside_a_controlnet_an_edit_names_it():
    """`<block>.adapter` is the ControlNet's residual there."""
    case = CASES["infusenet"]
    with torch.random.fork_rng(), adding(case, "mine"):
        sites = Sites.of_pipe(case.pipe)
        assert sites.chosen(Edit("double.00.adapter", Scale(0.0))) == ["double.00.adapter"]
        with edit(case.pipe, Edit("*.image.mine", Scale(0.0))):
            without = case()
        assert (case() != without).any()
    np.testing.assert_array_equal(without, case())


def test_what_is_only_told_cannot_be_edited():
    case = CASES["flux"]
    with attached(case.denoiser) as modules, declare(case.pipe, declared(modules)):
        for site in ("double.00.adapter", "double.00.image.pulid"):
            with (
                pytest.raises(EditError, match="no site matches"),
                edit(case.pipe, Edit(site, Scale(0.0))),
            ):
                pass


def test_an_adapter_that_is_off_is_not_edited():
    case = CASES["flux"]
    place = Declared(
        "mine", "double.00", "image", nn.Linear(32, 32), returned, lambda a, k, o: a[0]
    )
    with declare(case.pipe, [place]), edit(case.pipe, Edit("*.adapter", Scale(0.0))):
        with pytest.raises(EditError, match="the adapter handed nothing over"):
            case()


@pytest.mark.parametrize("told", [1.0, 1.1])
def test_verify_switches_off_what_a_hook_adds_to_a_block(told):
    case = CASES["flux"]
    with attached(case.denoiser) as modules:
        places = [
            Declared(
                "pulid",
                one.block,
                "image",
                one.module,
                lambda args, kwargs, output: told * WEIGHT * output,
                one.base,
            )
            for one in declared(modules)
        ]
        with declare(case.pipe, places):
            (found,) = [f for f in verify(case.pipe, case) if f.claim == proofs.CLAIM]
    assert found.holds == (told == 1.0)
    assert found.detail.startswith("2 comparisons")
    assert "not checked" not in found.detail


def test_two_adapters_of_one_name_and_place_are_refused():
    case = CASES["flux"]
    with attached(case.denoiser) as modules:
        with declare(case.pipe, declared(modules)):
            with pytest.raises(
                StepscopeError, match=r"double\.00\.image\.pulid is declared already"
            ):
                with declare(case.denoiser, declared(modules)):
                    pass
        assert injections_of(case.denoiser) == []


def test_an_error_in_what_is_declared_costs_no_image(tmp_path):
    """After the first step it is told, and the call goes on."""
    case, calls = CASES["flux"], [0]

    def added(args: Any, kwargs: Any, output: torch.Tensor) -> torch.Tensor:
        calls[0] += 1
        if calls[0] > 1:
            raise ValueError("no")
        return output

    with attached(case.denoiser) as modules:
        one = declared(modules)[0]
        wrong = Declared("pulid", "double.00", "image", modules[0], added, one.base)
        plain, images = case(), np.zeros(0)
        with declare(case.pipe, [wrong]), pytest.raises(ValueError, match="no"):
            with (
                record(case.pipe, tmp_path / "run.zarr"),
                pytest.warns(UserWarning, match="nothing"),
            ):
                images = case()
    assert images.tobytes() == plain.tobytes()


def test_verify_notices_a_wrong_contribution(monkeypatch):
    case = CASES["flux_controlnet"]
    (before,) = [f for f in verify(case.pipe, case) if f.claim == proofs.CLAIM]
    assert before.holds
    ratios = Residuals.ratios
    monkeypatch.setattr(
        Residuals, "ratios", lambda self, seen: {p: 1.01 * r for p, r in ratios(self, seen).items()}
    )
    (after,) = [f for f in verify(case.pipe, case) if f.claim == proofs.CLAIM]
    assert not after.holds


def test_a_slot_keeps_the_first_tensor_of_a_pass():
    meter, model, clock = Meter(2), nn.Identity(), Clock()
    clock.start(1)
    meter.attach(clock, model)
    model.register_forward_pre_hook(
        lambda m, args: [meter.put(0, torch.full((2, 3, 4), x), -2.0) for x in (1.0, 5.0)] and None
    )
    model(torch.zeros(2, 1))
    np.testing.assert_allclose(meter.read()[0, 0], [[2 * 12**0.5] * 2, [np.nan] * 2])


def test_verify_notices_a_contribution_that_no_check_sees(monkeypatch):
    case = CASES["infusenet"]
    monkeypatch.setattr(InjectionCheck, "attach", lambda self: [])
    (found,) = [f for f in verify(case.pipe, case) if f.claim == proofs.CLAIM]
    assert not found.holds
    assert "stored and not seen to change" in found.detail
