"""A user's mistake is one line that says what would work, exit status 2, no traceback, nothing on disk."""

import errno
import shutil
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
import xarray as xr
from huggingface_hub import errors as hub

from stepscope.probes import models, weights
from tests.models import INFINITE_YOU
from tests.shell import infused, listed, tiny

MISTAKES = {
    "key": (["stepz=4"], "no configuration key 'stepz'; did you mean 'steps'"),
    "key of a group": (
        ["backbone.pth=x"],
        "no configuration key 'backbone.pth'; did you mean 'backbone.path'",
    ),
    "experiment": (
        ["experiment=trajectry"],
        "no experiment='trajectry'; did you mean 'trajectory'",
    ),
    "backbone": (
        ["backbone=flux_schnel"],
        "no backbone='flux_schnel'; did you mean 'flux_schnell'",
    ),
    "site": (
        ["record=full", "record.sites=['double.01.atention.image']"],
        "no site matches 'double.01.atention.image'; did you mean 'double.01.attention.image'",
    ),
    "sites unnamed": (["record=full"], "record.sites is not set: name record.sites=..."),
    "massive": (["record.massive=65"], "record.massive=65: from 0 to 64 channels can be left out"),
    "type": (["steps=four"], "steps='four': "),
    "negative": (["steps=0"], "steps=0 is not positive"),
    "folder": (["backbone.path=/no/such/flux"], "backbone flux_dev: no folder '/no/such/flux'"),
    "device": (["device=cuda:99"], "no device='cuda:99' here; known: auto"),
    "key after a plus": (["+stepz=4"], "no configuration key 'stepz'"),
    "key left out": (["~seeds"], "seeds is not set: name seeds=..."),
    "seed": ([f"seeds=[{2**64}]"], f"seeds=[{2**64}]: torch takes 64 bits"),
    "low seed": ([f"seeds=[{-(2**63) - 1}]"], f"seeds=[{-(2**63) - 1}]: torch takes 64 bits"),
    "prompt twice": (["prompts=[a man,a man]"], "prompts has 'a man' 2 times"),
    "seed twice": (["seeds=[3,3]"], "seeds=[3, 3] names one twice"),
    "seed under two names": (
        [f"seeds=[-1,{2**64 - 1}]"],
        f"seeds=[-1, {2**64 - 1}] names one twice (-1 and 2^64 - 1 are the same)",
    ),
    "height": (["height=7"], "height=7, width=64: a token is 8 x 8 pixels"),
    "text": (["max_sequence_length=513"], "max_sequence_length=513: FLUX reads 512 at most"),
    "prompts": (["prompts=[none.txt]"], "no prompt file 'none.txt'"),
    "latents": (["initial_latents=none.npy"], "initial_latents: no file 'none.npy'"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_answered_in_one_line(name, typed, tmp_path, unchecked):
    words, line = MISTAKES[name]
    answer = typed(tiny(), *words, f"out={tmp_path / 'run.zarr'}")
    assert answer.status == 2
    assert answer.line.startswith(line)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            {"adapter__window": "[0,4]"},
            "adapter.window=[0.0, 4.0] in fractions of the run goes from 0 to 1; steps are counted with",
        ),
        ({"adapter__scale": "nan"}, "adapter.scale=nan is not finite"),
    ],
)
def test_window_and_scale_that_cannot_be_meant(words, line, typed, face):
    answer = typed(infused(faces=listed(face), **words))
    assert answer.status == 2
    assert answer.line.startswith(line)


@pytest.mark.parametrize("word", ["-h", "--help"])
def test_help_names_groups_and_keys(word, typed):
    answer = typed([word])
    assert (answer.status, answer.err) == (0, "")
    for line in ("  backbone   = flux_dev | flux_schnell |", "  seeds=[0] ", "  record.massive=2 "):
        assert f"\n{line}" in answer.out
    assert "hydra" not in answer.out
    assert "adapter.scale" not in answer.out
    for line in ("  adapter.scale=1.0", "  steps=28", "  adapter.window_unit=fraction     "):
        assert f"\n{line}" in typed(["adapter=infusenet", "backbone=flux_dev", word]).out


@pytest.mark.parametrize("place", [0, 5, None])
def test_a_sweep_may_be_asked_for_anywhere(place, typed):
    words = tiny()
    words.insert(len(words) if place is None else place, "-m")
    answer = typed(words, "steps=1,2", "--dry")
    assert answer.status == 0, answer.err
    assert [f"\n  steps={n} " in answer.out for n in (1, 2, 3)] == [True, True, False]


@pytest.mark.parametrize(
    "values",
    [np.full((4, 16, 16), np.inf), np.full((4, 16, 16), "a"), np.ones((4, 16, 16), complex)],
    ids=["infinite", "words", "complex"],
)
def test_initial_latents_that_are_no_finite_numbers(values, typed, tmp_path):
    np.save(tmp_path / "latents.npy", values)
    answer = typed(tiny(initial_latents="latents.npy"))
    line = "initial_latents 'latents.npy' holds what is not a finite number"
    assert (answer.status, answer.line) == (2, line)


def test_prompt_file_is_utf_8_with_or_without_a_mark(typed, tmp_path):
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        (tmp_path / "prompts.txt").write_text("café\n", encoding=encoding)
        answer = typed(tiny(prompts="[prompts.txt]", out=f"{encoding}.zarr"))
        if encoding == "utf-16":
            line = "prompt file 'prompts.txt' is not text in UTF-8"
            assert (answer.status, answer.line) == (2, line)
        else:
            assert xr.open_zarr(f"{encoding}.zarr").prompt.values.tolist() == ["café"]


def test_backbone_has_to_be_named(typed):
    answer = typed(["prompts=[a man]"])
    assert answer.status == 2
    assert answer.line.startswith("backbone is not set; known: flux_dev, flux_schnell")


@pytest.mark.parametrize(
    ("image", "told"),
    [
        ("none.png", "is not there: no such file"),
        ("letter.png", "is no picture that can be read here: save it as PNG or JPEG"),
    ],
)
def test_control_image_that_cannot_be_read(image, told, typed, tmp_path, face):
    (tmp_path / "letter.png").write_text("no image")
    answer = typed(infused(faces=listed(face), control_image=image))
    assert (answer.status, answer.line) == (2, f"control_image '{image}' {told}")


def test_weights_under_the_other_backbone_s_schedule_are_refused(typed, tmp_path):
    """Recorded, they would be images of a schedule that schnell was never distilled for."""
    mixed = tmp_path / "mixed"
    shutil.copytree(INFINITE_YOU / "flux-schnell", mixed)
    shutil.rmtree(mixed / "scheduler")
    shutil.copytree(INFINITE_YOU / "flux-dev" / "scheduler", mixed / "scheduler")
    answer = typed(tiny("schnell", backbone__path=mixed, out=tmp_path / "run.zarr"))
    assert answer.status == 2
    assert answer.line.startswith("these are schnell's weights")
    assert "under dev's schedule" in answer.line
    assert not (tmp_path / "run.zarr").exists()


def answered(kind: Any, status: int) -> Exception:
    """The hub's error as its client raises it."""
    request = httpx.Request("GET", "https://hub/someone/flux")
    return kind("refused\nsecond line", response=httpx.Response(status, request=request))


HUB = {
    "gated": (
        lambda: answered(hub.GatedRepoError, 403),
        ("is gated", "accept its licence", "hf auth login"),
    ),
    "missing": (
        lambda: answered(hub.RepositoryNotFoundError, 401),
        ("neither a local folder", "needs a token"),
    ),
    "offline": (lambda: hub.LocalEntryNotFoundError("refused"), ("hf download someone/flux",)),
}


@pytest.mark.parametrize("name", HUB)
def test_weights_that_the_hub_does_not_give(name, typed, monkeypatch):
    error, phrases = HUB[name]

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise error()

    monkeypatch.setattr(weights, "snapshot_download", refuse)
    answer = typed(tiny(backbone__path="someone/flux"))
    assert answer.status == 2
    assert "'someone/flux'" in answer.line
    assert all(phrase in answer.line for phrase in phrases)


SHORTAGES = {
    "GPU": (
        torch.OutOfMemoryError("CUDA out of memory.\nTried"),
        "out of GPU memory: lower batch_size, height and width",
    ),
    "memory": (MemoryError(), "out of memory: lower batch_size, height and width"),
    "allocator": (
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
        "out of memory: lower batch_size",
    ),
    "disk": (OSError(errno.ENOSPC, "No space left on device"), "the disk is full: make room"),
}


@pytest.mark.parametrize("name", SHORTAGES)
def test_shortage_says_what_to_lower(name, typed, monkeypatch):
    error, line = SHORTAGES[name]

    def load(*args: Any) -> None:
        raise error

    monkeypatch.setattr(models, "load", load)
    answer = typed(tiny())
    assert answer.status == 2
    assert answer.line.startswith(line)


def test_fault_of_ours_keeps_its_traceback(typed, monkeypatch):
    def load(*args: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(models, "load", load)
    with pytest.raises(RuntimeError, match="a bug"):
        typed(tiny())
    assert not list(Path.cwd().glob("*.zarr"))
