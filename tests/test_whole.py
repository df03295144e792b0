"""Whole tensors of `full`: every byte as the model made it, through memory of a fixed size."""

import copy
import threading
from typing import Any

import numpy as np
import pytest
import torch

from stepscope.hooks import Capture, record
from stepscope.hooks.edits import Edit, Swap, edit
from stepscope.hooks.errors import RunError
from stepscope.hooks.ring import Ring
from stepscope.hooks.spool import Spool
from stepscope.hooks.store import Run
from stepscope.hooks.whole import as_float32
from tests.cases import CASES
from tests.small import FLUX_SMALL, opened, seeded

SITE = "double.01.attention.image"
WHOLE = Capture(level="full", sites=(SITE, "single.00.residual.*"))


@pytest.fixture(params=[torch.bfloat16, torch.float16, torch.float32], ids=str)
def pipe(request) -> Any:
    """The tiny FLUX in that precision."""
    made = copy.copy(CASES["flux"].pipe)
    made.transformer = copy.deepcopy(made.transformer).to(request.param)
    return made


def call(pipe: Any, seed: int = 0) -> None:
    of, dtype = pipe.transformer.config, pipe.transformer.dtype
    pipe(
        prompt_embeds=torch.randn(1, 16, of.joint_attention_dim, generator=seeded(1)).to(dtype),
        pooled_prompt_embeds=torch.randn(1, of.pooled_projection_dim, generator=seeded(2)).to(
            dtype
        ),
        generator=seeded(seed),
        output_type="latent",
        **FLUX_SMALL,
    )


def copied(pipe: Any) -> tuple[list[torch.Tensor], Any]:
    """Copies of what the site returns, made at once, and the handle of the hook that makes them."""
    seen: list[torch.Tensor] = []
    module = pipe.transformer.transformer_blocks[1].attn
    return seen, module.register_forward_hook(lambda m, a, output: seen.append(output[0].clone()))


def test_every_byte_is_that_of_a_synchronous_copy(pipe, tmp_path):
    seen, handle = copied(pipe)
    with record(pipe, tmp_path / "run.zarr", WHOLE):
        call(pipe)
        call(pipe)
    handle.remove()
    stored = opened(tmp_path / "run.zarr")[SITE]
    want = torch.cat(seen).view(torch.int8).numpy()
    have = np.ascontiguousarray(stored.values[:, :, 0]).view(np.int8).reshape(want.shape)
    np.testing.assert_array_equal(have, want)
    kind = str(pipe.transformer.dtype).removeprefix("torch.")
    assert stored.attrs.get("number_format", str(stored.dtype)) == kind
    numbers = as_float32(stored.values, kind)
    np.testing.assert_array_equal(numbers[:, :, 0].reshape(-1), torch.cat(seen).float().flatten())


def test_what_was_kept_is_given_back_by_an_edit(pipe, tmp_path):
    path = tmp_path / "run.zarr"
    with record(pipe, path, WHOLE):
        call(pipe)
    with edit(pipe, Edit(SITE, Swap(str(path), (0,)))):
        seen, handle = copied(pipe)  # behind the edit's own hook
        call(pipe, seed=5)
    handle.remove()
    stored = opened(path)[SITE]
    kind = str(pipe.transformer.dtype).removeprefix("torch.")
    want = as_float32(stored.values[0, :, 0], kind)
    np.testing.assert_array_equal(torch.cat(seen).float().numpy(), want)


def test_a_run_keeps_its_precision(tmp_path):
    half = copy.copy(CASES["flux"].pipe)
    half.transformer = copy.deepcopy(half.transformer).to(torch.bfloat16)
    with record(half, tmp_path / "run.zarr", WHOLE):
        call(half)
    run = Run.open(tmp_path / "run.zarr")
    run.check_precision(SITE, "bfloat16")
    with pytest.raises(RunError, match=f"{SITE} is float32 here and bfloat16 in"):
        run.check_precision(SITE, "float32")


def test_memory_on_its_way_is_bounded_and_nothing_is_lost(monkeypatch, tmp_path):
    """Three tensors have room; who brings more waits until one is written."""
    tensors = [torch.full((1, 4, 8), float(i)) for i in range(12)]
    ring, gate, put = Ring(limit=3 * tensors[0].nbytes), threading.Semaphore(0), Spool.put
    written: list[tuple[int, int]] = []

    def slow(self: Spool, site: str, place: tuple[int, int], values: torch.Tensor) -> None:
        gate.acquire()
        put(self, site, place, values)
        written.append(place)

    monkeypatch.setattr(Spool, "put", slow)
    spool, brought = Spool(tmp_path / "run.zarr", ring), []

    def bring() -> None:
        for i, tensor in enumerate(tensors):
            spool.keep(SITE, (i, 0), tensor)
            brought.append(i)

    bringing = threading.Thread(target=bring)
    bringing.start()
    bringing.join(0.3)
    assert (len(brought), len(written)) == (3, 0)
    for _ in tensors:
        gate.release()
    bringing.join(10)
    spool.settle()
    assert sorted(place for place, _ in written) == [*range(12)]
    for (_, (step, _)), (file,) in spool._files.items():
        assert np.fromfile(file, np.float32, 32).tolist() == [float(step)] * 32
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_a_tensor_that_is_larger_than_the_memory_has_it_alone():
    ring = Ring(limit=8)
    held = ring.take(torch.arange(100))
    assert held.values().tolist() == [*range(100)]
    held.release()
    assert ring.take(torch.ones(3)).values().tolist() == [1.0] * 3


def test_what_changes_after_it_was_kept_is_stored_as_it_was():
    tensor = torch.zeros(4)
    held = Ring().take(tensor)
    tensor += 1
    assert not held.values().any()
