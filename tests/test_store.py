"""What is written is what is read by plain xarray, and only complete samples are done."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from stepscope.hooks import atomic
from stepscope.hooks.capture import Capture
from stepscope.hooks.errors import RunError
from stepscope.hooks.families import blocks_of
from stepscope.hooks.layout import layout
from stepscope.hooks.store import Run, bytes_on_disk
from tests.cases import CASES
from tests.filled import LENGTH, STEPS, filled, plan, row

KINDS = {"float32": np.float32, "float64": np.float64, "uint8": np.uint8}
SHAPES = st.lists(st.integers(1, 5), max_size=3).map(tuple)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


def numbers(kind: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Any bits at all, as that kind: NaN with payloads, infinities and subnormals among them."""
    rng = np.random.default_rng(seed)
    size = int(np.prod(shape)) * np.dtype(kind).itemsize
    return np.frombuffer(rng.bytes(size), KINDS[kind]).reshape(shape)


@settings(max_examples=25, deadline=None)
@given(
    kinds=st.dictionaries(
        st.sampled_from(["u", "v", "w"]), st.tuples(st.sampled_from(sorted(KINDS)), SHAPES)
    ),
    labels=st.lists(st.tuples(TEXTS, TEXTS, st.integers(-(2**63), 2**63 - 1)), max_size=4),
    seed=st.integers(0, 2**32 - 1),
)
def test_what_is_written_is_read_back_by_plain_xarray(tmp_path_factory, kinds, labels, seed):
    path = tmp_path_factory.mktemp("store") / "run.zarr"
    given = [{"face": f, "prompt": p, "seed": s, "batch_size": 1} for f, p, s in labels]
    run = Run.create(path, plan(**kinds), given, {"note": "é"})
    for i in range(len(labels)):
        values = {n: numbers(kind, shape, seed + i) for n, (kind, shape) in kinds.items()}
        run.write(i, values)
    seen = xr.open_zarr(path).load()
    assert seen.attrs["note"] == "é"
    assert seen.done.values.tolist() == [True] * len(labels)
    for label, *texts in zip(given, seen.face.values, seen.prompt.values, strict=True):
        assert [label["face"], label["prompt"]] == [str(text) for text in texts]
    assert seen.seed.values.tolist() == [label["seed"] for label in given]
    for name, (kind, shape) in kinds.items():
        assert seen[name].attrs == {"units": "m", "long_name": name, "description": "a length"}
        for i in range(len(labels)):
            assert seen[name].values[i].tobytes() == numbers(kind, shape, seed + i).tobytes()


def test_done_is_written_last(tmp_path, monkeypatch):
    """Whatever fails while a sample is written, it is not done."""
    path = tmp_path / "run.zarr"
    run = Run.create(path, plan(a=("uint8", ()), b=("uint8", ())), [{}], {})
    run.write_steps(STEPS)
    order: list[str] = []
    replace = os.replace

    def fail_at(index: int) -> None:
        def full(beside: Path, file: Path) -> None:
            if len(order) == index:
                raise OSError(28, "No space left on device")
            order.append(file.relative_to(path).parts[0])
            replace(beside, file)

        order.clear()
        monkeypatch.setattr(os, "replace", full)

    values = {"a": np.uint8(1), "b": np.uint8(2)}
    values = {name: np.asarray(value) for name, value in values.items()}
    for index in range(3):
        fail_at(index)
        with pytest.raises(OSError, match="No space"):
            run.write(0, values)
        assert not xr.open_zarr(path).done.values.any()
    fail_at(3)
    run.write(0, values)
    assert order == ["a", "b", "done"]
    assert xr.open_zarr(path).done.values.all()
    fail_at(2)  # a sample made again is not done while half of it is old
    with pytest.raises(OSError, match="No space"):
        Run.open(path).write(0, values)
    assert not xr.open_zarr(path).done.values.any()


def test_other_variables_and_shapes_are_refused_with_the_difference(tmp_path):
    run = filled(tmp_path / "run.zarr")
    with pytest.raises(RunError, match=r"missing \['length'\], new \['depth'\]"):
        run.write(0, {"depth": np.zeros(4, np.float32)})
    with pytest.raises(RunError, match=r"length is \(5,\) here and \(4,\) in .*run\.zarr"):
        run.write(0, {"length": np.zeros(5, np.float32)})
    with pytest.raises(RunError, match="another schedule: sigma differs"):
        run.write_steps({"sigma": np.ones(3, np.float32)})
    np.testing.assert_array_equal(run.read("length"), [[0, 1, 2, 3], [1, 2, 3, 4]])


def test_run_of_another_schema_is_refused(tmp_path):
    filled(tmp_path / "run.zarr").annotate(schema_version=0)
    with pytest.raises(RunError, match=r"run\.zarr has schema version 0; this .* writes 4$"):
        Run.open(tmp_path / "run.zarr")


def test_what_is_no_run_or_stands_in_the_way_is_refused(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(RunError, match="folder is not a run"):
        Run.open(tmp_path / "folder")
    with pytest.raises(RunError, match="folder already exists"):
        Run.create(tmp_path / "folder", plan(**LENGTH), [], {})


def dead() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_left_overs_of_a_killed_process_are_swept_up_and_those_of_a_live_one_are_not(tmp_path):
    """A sibling of another machine may be alive: nobody here can tell."""
    here, path = atomic.machine(), tmp_path / "run.zarr"
    names = {
        f".run.zarr.{here}.{dead()}.a1.partial": True,
        f".run.zarr.{here}.{os.getpid()}.a1.partial": False,
        f".run.zarr.another-host.{dead()}.a1.partial": False,
        f".run.zarr.b.{here}.{os.getpid()}.a1.partial": False,
        f".other.zarr.{here}.{dead()}.a1.partial": False,
        ".run.zarr.123.partial": False,
    }
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "zarr.json").touch()
    filled(path)
    stay = [name for name, gone in names.items() if not gone]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*stay, "run.zarr"])
    stale, live = f".0.{here}.{dead()}.b2.partial", f".0.{here}.{os.getpid()}.b2.partial"
    for name in (stale, live):
        (path / "done" / name).touch()
    Run.open(path)
    assert [p.name for p in (path / "done").glob(".*.partial")] == [live]


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path, monkeypatch):
    run = filled(tmp_path / "run.zarr")

    def full(beside: Path, file: Path) -> None:
        raise OSError(28, "No space left on device")

    before = sorted(tmp_path.rglob("*"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(OSError, match="No space"):
            run.append([{}], [row(0)])
    assert {p for p in tmp_path.rglob("*") if p.is_file()} <= {*before, run.path / "done" / ".lock"}


def test_bytes_on_disk_are_those_of_all_files(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(b"12345")
    (tmp_path / "c").write_bytes(b"12")
    assert bytes_on_disk(tmp_path) == 7


def test_sample_past_128_mebibytes_is_stored_step_by_step(tmp_path):
    """Blosc ends at 2 GiB: whole tensors of full-size sites go one chunk a step."""
    shape = (5, 1, 7000, 1000)
    blocks = blocks_of(CASES["flux"].denoiser)
    site = "double.00.attention.image"
    found = layout(
        blocks,
        [],
        Capture("full", sites=(site,)),
        streams=("image", "text", "padding"),
        steps=5,
        branches=("positive",),
        latent=(4, 8, 12),
        image=None,
        grid=(4, 6),
        full={site: shape[2:]},
    )
    Run.create(tmp_path / "run.zarr", found, [{}], {})
    seen = xr.open_zarr(tmp_path / "run.zarr", chunks=None)
    assert seen[site].encoding["chunks"] == (1, 1, *shape[1:])
    assert seen.latents.encoding["chunks"] == (1, 5, 4, 8, 12)
