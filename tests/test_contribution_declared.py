"""What a tool's own adapter adds: modules that its hooks run, told by `declare`."""

from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from stepscope.hooks import record, verify
from stepscope.hooks.clock import Clock
from stepscope.hooks.errors import StepscopeError
from stepscope.hooks.injections import Declared, declare, injections_of
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
