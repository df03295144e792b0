"""What is written is what is read; only complete samples are done; damage is an error, not a number."""

import json
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from hooks.capture import Capture
from hooks.errors import RunError
from hooks.layout import Layout, layout
from hooks.sites import blocks_of
from hooks.store import Run, bytes_on_disk
from hooks.vocabulary import Variable
from tests.models import CASES

KINDS = {"float32": np.float32, "float64": np.float64, "uint8": np.uint8}
SHAPES = st.lists(st.integers(1, 5), max_size=3).map(tuple)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


def declared(kind: str, shape: tuple[int, ...], name: str) -> Variable:
    return Variable(("sample", *(f"{name}_{i}" for i in range(len(shape)))), kind, "m", "a length")


def plan(**kinds: tuple[str, tuple[int, ...]]) -> Layout:
    """A run of these variables, besides the two that every run has."""
    variables = {n: (declared(kind, shape, n), shape) for n, (kind, shape) in kinds.items()}
    variables["done"] = Variable(("sample",), "bool", "1", "written last"), ()
    for name in ("sigma", "timestep"):
        variables[name] = Variable(("step",), "float32", "1", "of the schedule"), (3,)
    return Layout(variables, {"step": ("step", np.arange(3))})


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
        assert seen[name].attrs == {"units": "m", "long_name": "a length"}
        for i in range(len(labels)):
            assert seen[name].values[i].tobytes() == numbers(kind, shape, seed + i).tobytes()


LENGTH = {"length": ("float32", (4,))}


def filled(path: Path, samples: int = 2, **attributes: Any) -> Run:
    run = Run.create(path, plan(**LENGTH), [{"face": "ann"}] * samples, attributes)
    for i in range(samples):
        run.write(i, {"length": np.arange(4, dtype=np.float32) + i})
    run.write_steps({name: np.arange(3, dtype=np.float32) for name in ("sigma", "timestep")})
    return run


def test_done_is_written_last(tmp_path, monkeypatch):
    """Whatever fails while a sample is written, it is not done."""
    path = tmp_path / "run.zarr"
    run = Run.create(path, plan(a=("uint8", ()), b=("uint8", ())), [{}], {})
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


def test_an_empty_file_is_a_lost_one(tmp_path):
    path = tmp_path / "run.zarr"
    filled(path)
    (path / "length" / "c" / "1" / "0").write_bytes(b"")
    assert Run.open(path).done.tolist() == [True, False]
    with pytest.raises(RunError, match="cut off"):
        Run.open(path).read("length")


@pytest.mark.parametrize(
    ("text", "answer"),
    [('{"zarr_format"', "cannot be read"), ("{}", "schema version None")],
)
def test_a_damaged_root_document_is_answered_in_one_line(tmp_path, text, answer):
    path = tmp_path / "run.zarr"
    filled(path)
    (path / "zarr.json").write_text(text)
    with pytest.raises(RunError, match=answer):
        Run.open(path)


def chunks(path: Path) -> list[Path]:
    return sorted(f for f in path.rglob("*") if f.is_file() and f.name != "zarr.json")


def test_flipped_byte_in_any_chunk_is_an_error(tmp_path):
    path = tmp_path / "run.zarr"
    filled(path)
    assert {f.relative_to(path).parts[0] for f in chunks(path)} == set(xr.open_zarr(path).variables)
    rng = np.random.default_rng(0)
    for chunk in chunks(path):
        good = chunk.read_bytes()
        for place in {0, len(good) - 1, *rng.integers(len(good), size=4).tolist()}:
            bad = bytearray(good)
            bad[place] ^= 1 << int(rng.integers(8))
            chunk.write_bytes(bytes(bad))
            with pytest.raises(Exception, match=r"(?i)checksum"):
                xr.open_zarr(path).load()
        chunk.write_bytes(good)
    xr.open_zarr(path).load()


def test_run_with_a_damaged_file_is_not_continued(tmp_path):
    path = tmp_path / "run.zarr"
    filled(path)
    file = path / "done" / "c" / "1"
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    with pytest.raises(RunError, match=r"done/c/1 is damaged: checksum"):
        Run.open(path).done  # noqa: B018


def test_run_in_unknown_codecs_is_refused(tmp_path):
    path = tmp_path / "run.zarr"
    filled(path)
    text = (path / "zarr.json").read_text()
    (path / "zarr.json").write_text(text.replace('"name": "zstd"', '"name": "zst"'))
    with pytest.raises(RunError, match="no codec 'zst'; did you mean 'zstd'"):
        Run.open(path)


def test_recorded_run_is_checked_too(tmp_path, recorded):
    """Every array that `record` makes, not only those of this file."""
    recorded_at = recorded(CASES["infusenet_cfg"]).path
    for chunk in chunks(recorded_at):
        metadata = next(p / "zarr.json" for p in chunk.parents if (p / "zarr.json").exists())
        codecs = [codec["name"] for codec in json.loads(metadata.read_text())["codecs"]]
        assert codecs[-1] == "crc32c", metadata


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
    with pytest.raises(RunError, match=r"run\.zarr has schema version 0; this .* writes 1"):
        Run.open(tmp_path / "run.zarr")


def test_what_is_no_run_or_stands_in_the_way_is_refused(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(RunError, match="folder is not a run"):
        Run.open(tmp_path / "folder")
    with pytest.raises(RunError, match="folder already exists"):
        Run.create(tmp_path / "folder", plan(**LENGTH), [], {})


def test_run_is_extended_at_its_end(tmp_path):
    path = tmp_path / "run.zarr"
    run = filled(path, samples=2)
    assert run.extend([{"face": "bob", "seed": 7}, {"prompt": "at the beach"}]) == [2, 3]
    assert Run.open(path).extend([]) == []
    seen = xr.open_zarr(path).load()
    assert seen.sample.values.tolist() == [0, 1, 2, 3]
    assert seen.face.values.tolist() == ["ann", "ann", "bob", ""]
    assert seen.prompt.values.tolist() == ["", "", "", "at the beach"]
    assert seen.seed.values.tolist() == [-1, -1, 7, -1]
    assert seen.done.values.tolist() == [True, True, False, False]
    assert seen.length[2:].isnull().all()
    run.write(3, {"length": np.full(4, 9, np.float32)})
    assert xr.open_zarr(path).done.values.tolist() == [True, True, False, True]


def test_reader_sees_the_run_of_before_until_it_is_extended(tmp_path):
    """A reader that opens the run at any moment of `extend` gets a run that is whole."""
    path, sizes, stop = tmp_path / "run.zarr", set(), threading.Event()
    run = filled(path, samples=1)
    failures: list[Exception] = []

    def read() -> None:
        while not stop.is_set():
            try:
                sizes.add(xr.open_zarr(path).load().sizes["sample"])
            except Exception as error:
                failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(10):
        run.extend([{"face": "bob"}])
    stop.set()
    reader.join()
    assert not failures
    assert sizes <= set(range(1, 12))


def test_left_overs_of_a_killed_process_are_swept_up(tmp_path):
    left = tmp_path / ".run.zarr.123.partial"
    left.mkdir()
    (left / "zarr.json").touch()
    filled(tmp_path / "run.zarr")
    assert [p.name for p in tmp_path.iterdir()] == ["run.zarr"]


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
        context="text",
        steps=5,
        branches=1,
        latent=(4, 8, 12),
        image=None,
        grid=(4, 6),
        full={site: shape[2:]},
    )
    Run.create(tmp_path / "run.zarr", found, [{}], {})
    seen = xr.open_zarr(tmp_path / "run.zarr", chunks=None)
    assert seen[site].encoding["chunks"] == (1, 1, *shape[1:])
    assert seen.latents.encoding["chunks"] == (1, 5, 4, 8, 12)
