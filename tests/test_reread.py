"""What is read again is what an ordinary run would have made; the record stays; a kill costs nothing."""

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from stepscope.analysis.runs import open_recorded
from stepscope.hooks.attributes import unpacked
from stepscope.hooks.errors import StepscopeError
from stepscope.hooks.store import Run
from stepscope.probes import reread as module
from stepscope.probes.reread import Settings, check_reproduces, load, main, reread
from stepscope.probes.rereading import open_rereading, steps_off
from stepscope.probes.run import run
from tests.models import INFINITE_YOU
from tests.shell import infused, listed, run_command, study_of

STEPS = 3
KINDS = {
    "dev": ("dev", {}),
    "schnell": ("schnell", {"guidance": None}),
    "true_cfg": ("dev", {"true_cfg": 2.0, "negative_prompt": "sketch"}),
}


@pytest.fixture(scope="module")
def faces(tmp_path_factory) -> str:
    """Two faces as embeddings."""
    folder = tmp_path_factory.mktemp("faces")
    for i, name in enumerate(("ann", "bob")):
        np.save(folder / f"{name}.npy", np.random.default_rng(i).normal(size=512))
    return listed(*(folder / f"{name}.npy" for name in ("ann", "bob")))


@pytest.fixture(scope="module", params=KINDS)
def made(request, faces, tmp_path_factory):
    """`made(name, **changed)`: a run of both faces under one backbone and guidance."""
    backbone, more = KINDS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    words = {"faces": faces, "steps": STEPS, "batch_size": 2, **more}

    def of(name: str, **changed) -> Path:
        out = folder / f"{name}.zarr"
        if not out.exists():
            run(study_of(infused(backbone, **words | changed, out=out)), say=lambda text: None)
        return out

    return of


@pytest.fixture(scope="module")
def read(made) -> Path:
    """That run, read again whole."""
    path = Path(shutil.copytree(made("recorded"), made("recorded").with_name("read.zarr")))
    reread(path, Settings(off_from=tuple(range(STEPS))), say=lambda text: None)
    return path


def values(path: Path, reading: str = "") -> xr.Dataset:
    found = xr.open_zarr(path / "reread" / reading if reading else path, chunks=None).load()
    return found.assign_attrs(unpacked(found.attrs))


def files(path: Path) -> dict[str, str]:
    """Hash of every file of a folder."""
    return {
        str(f.relative_to(path)): hashlib.sha256(f.read_bytes()).hexdigest()
        for f in path.rglob("*")
        if f.is_file() and f.name != ".lock"
    }


def test_with_the_adapter_as_it_was_the_record_comes_out_again(made):
    path = made("recorded")
    again = open_rereading(path)
    found = check_reproduces(again, load(again, Settings(batch_size=2)))
    assert max(found.values()) < 1e-6
    loaded = load(again, Settings())
    recorded = values(path)
    x0, final = module.evaluate_latents(loaded, again.cells, recorded["latents"].values)
    np.testing.assert_array_equal(x0, recorded["x0"])
    np.testing.assert_array_equal(final, recorded["final_latents"])
    for k in range(STEPS):
        end = module.continue_rows(loaded, again.cells, recorded["latents"].values[:, k], k).final
        np.testing.assert_array_equal(end, recorded["final_latents"])


@pytest.mark.parametrize("k", [0, 1])
def test_without_it_from_a_step_on_is_the_ordinary_run_with_that_window(k, made, read):
    """Up to x_k both runs are one; there the window closes, and the run goes on without the adapter."""
    closed = values(made(f"window_{k}", adapter__window=f"[0,{k}]", adapter__window_unit="step"))
    np.testing.assert_array_equal(
        closed["latents"][:, : k + 1], values(read)["latents"][:, : k + 1]
    )
    carried, committed = (values(read, name) for name in ("carried", "committed"))
    np.testing.assert_array_equal(carried["carried_x0"][:, k], closed["x0"][:, k])
    np.testing.assert_array_equal(
        committed["committed_latents"].sel(off_from=k), closed["final_latents"]
    )


def test_off_from_the_end_is_the_run_itself(read):
    committed, recorded = values(read, "committed"), values(read)
    assert committed["off_from"].values.tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(committed["off_sigma"], [*recorded["sigma"].values, 0])
    last = committed["committed_latents"].sel(off_from=STEPS)
    np.testing.assert_array_equal(last, recorded["final_latents"])


def test_another_face_at_pure_noise_is_that_faces_own_run(read):
    swapped = values(read, "swapped")
    assert swapped.attrs["others"] == {"ann": "bob", "bob": "ann"}
    ann, bob = values(read)["x0"].values[:, 0]
    np.testing.assert_allclose(swapped["swapped_x0"][:, 0], [bob, ann], atol=1e-5)
    given = values(read)["face_embedding"].values[[1, 0]]
    np.testing.assert_array_equal(swapped["swapped_face_embedding"], given)
    off = values(read, "carried")["carried_x0"]
    assert np.abs(off - swapped["swapped_x0"]).max() > 1e-3
    assert np.abs(off - values(read)["x0"]).max() > 1e-3


def test_the_record_keeps_its_bytes_and_the_groups_say_what_made_them(made, read):
    after = files(read)
    assert {n: h for n, h in after.items() if not n.startswith("reread/")} == files(
        made("recorded")
    )
    for reading in ("carried", "swapped", "committed"):
        about = values(read, reading).attrs
        assert about["reading"] == reading
        assert about["samples"] == [0, 1]
        assert about["configuration"] == values(read).attrs["configuration"]
        assert 0 <= max(about["check"].values()) < 1e-6
        assert values(read, reading)["done"].values.all()
        assert values(read, reading)["face"].values.tolist() == ["ann", "bob"]


@pytest.fixture(scope="module")
def plain(faces, tmp_path_factory) -> Path:
    """A run of dev, a sample a batch."""
    out = tmp_path_factory.mktemp("plain") / "run.zarr"
    return run(study_of(infused(faces=faces, out=out)), say=lambda text: None)


@pytest.fixture
def path(plain, tmp_path) -> Path:
    return Path(shutil.copytree(plain, tmp_path / "run.zarr"))


def test_killed_it_goes_on_and_ends_with_the_same_bytes(plain, path, tmp_path, monkeypatch):
    undisturbed = Path(shutil.copytree(plain, tmp_path / "undisturbed.zarr"))
    only = Settings(readings=("carried", "committed"))
    reread(undisturbed, only, say=lambda text: None)
    real, calls = module.READ["committed"], []

    def killed(*args):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setitem(module.READ, "committed", killed)
    with pytest.raises(KeyboardInterrupt):
        reread(path, only, say=lambda text: None)
    assert values(path, "committed")["done"].values.tolist() == [True, False]
    said = []
    reread(path, only, say=said.append)
    assert "carried 0, committed 1" in said[0]
    assert files(path) == files(undisturbed)
    before = files(path)
    reread(path, only, say=said.append)
    assert (
        f"next: stepscope measure {path} 'metrics=[arcface_carried,arcface_committed]'" in said[1]
    )
    assert "; 0 evaluations" in said[2]
    assert said[3].startswith("finished: ")
    assert files(path) == before


@pytest.mark.parametrize("at", ["write_steps", "annotate"])
def test_killed_as_a_group_is_made_it_is_no_reading_yet_and_ends_whole(at, path, monkeypatch):
    def killed(*args, **more):
        raise KeyboardInterrupt

    only = Settings(readings=("carried",))
    with monkeypatch.context() as patch:
        patch.setattr(Run, at, killed)
        with pytest.raises(KeyboardInterrupt):
            reread(path, only, say=lambda text: None)
    assert "carried_x0" not in open_recorded(path)
    reread(path, only, say=lambda text: None)
    assert open_recorded(path)["carried_x0"].attrs["samples"] == [0, 1]
    np.testing.assert_array_equal(values(path, "carried")["sigma"], values(path)["sigma"])


def test_some_samples_first_and_the_others_later(path):
    reread(path, Settings(readings=("carried",), faces=("bob",)), say=lambda text: None)
    found = values(path, "carried")
    assert found.attrs["samples"] == [1]
    assert np.isnan(found["carried_x0"][0]).all()
    assert np.isfinite(found["carried_x0"][1]).all()
    reread(path, Settings(readings=("carried",)), say=lambda text: None)
    assert values(path, "carried").attrs["samples"] == [0, 1]
    assert np.isfinite(values(path, "carried")["carried_x0"]).all()


def test_the_plan_alone_writes_nothing(path, capsys):
    before = files(path)
    assert run_command([f"runs=[{path}]", "off_from=[1]", "--dry"], main) == 0
    told = capsys.readouterr().out
    # two steps for each of two samples, twice; and one from step 1 on for each
    assert "carried 2, swapped 2, committed 2; 10 evaluations, about 0.00 hours" in told
    assert files(path) == before


def test_another_model_is_refused(path, tmp_path):
    copy = Path(shutil.copytree(INFINITE_YOU / "infinite-you", tmp_path / "adapter"))
    moved = Settings(readings=("carried",), places={"adapter.path": str(copy)})
    reread(path, moved, say=lambda text: None)
    shutil.rmtree(path / "reread")
    weights = next((copy / "InfuseNetModel").glob("*.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(StepscopeError, match=r"adapter/InfuseNetModel/.*\.safetensors: \w+ -> \w+"):
        reread(path, moved, say=lambda text: None)
    assert not (path / "reread").exists()


def test_a_record_that_does_not_come_out_again_is_refused(path):
    x0 = xr.open_zarr(path, chunks=None)["x0"][:1].load()
    one = xr.Dataset({"x0": (x0.dims, x0.values * 1.01)})
    one.to_zarr(path, region={"sample": slice(0, 1)}, consolidated=False)
    with pytest.raises(StepscopeError, match="its sample 0 is not reproduced"):
        reread(path, Settings(readings=("carried",)), say=lambda text: None)


def test_a_first_sample_that_is_not_finite_is_passed_over(path):
    latents = xr.open_zarr(path, chunks=None)["final_latents"][:1].load()
    one = xr.Dataset({"final_latents": (latents.dims, np.full_like(latents.values, np.inf))})
    one.to_zarr(path, region={"sample": slice(0, 1)}, consolidated=False)
    again = open_rereading(path)
    assert check_reproduces(again, load(again, Settings()))["x0"] < 1e-5
    both = xr.open_zarr(path, chunks=None)["final_latents"].load()
    none = xr.Dataset({"final_latents": (both.dims, np.full_like(both.values, np.inf))})
    none.to_zarr(path, region={"sample": slice(0, 2)}, consolidated=False)
    with pytest.raises(StepscopeError, match="no sample of it is finite"):
        check_reproduces(again, load(again, Settings()))


def test_other_steps_than_those_that_are_there_are_refused(path):
    reread(path, Settings(readings=("committed",), off_from=(1,)), say=lambda text: None)
    with pytest.raises(StepscopeError, match=r"has off_from=\[1\], not \[0\]"):
        reread(path, Settings(readings=("committed",), off_from=(0,)), say=lambda text: None)


def test_the_usual_steps_are_dense_early(path):
    long = replace(open_rereading(path), sigma=np.linspace(1, 0, 28, endpoint=False))
    assert steps_off(long, None) == (0, 1, 2, 3, 4, 6, 8, 12, 16, 20, 24)
    assert steps_off(long, [9, 3, 9]) == (3, 9)


@pytest.mark.parametrize(
    ("word", "line"),
    {
        "readings=[caried]": "readings: no 'caried'; did you mean 'carried'",
        "off_from=[7]": "has steps 0 to 1",
        "off_from=[]": "off_from is empty",
        "off_from=[0.5]": "off_from.0=0.5: a whole number is wanted",
        "faces=[10_0]": "has no '10_0'; known: ann, bob",
        "places=3": "places=3: name places=",
        "batch_size=x": "batch_size='x': a whole number is wanted",
        "faces=[anna]": "has no 'anna'; did you mean 'ann'",
        "places={backbone.pat:x}": "places: no 'backbone.pat'; known: backbone.path",
    }.items(),
)
def test_a_mistake_is_one_line(word, line, path, capsys, unchecked):
    assert run_command([f"runs=[{path}]", word], main) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert line in told


def test_one_face_has_no_other_and_no_adapter_nothing_to_switch_off(faces, tmp_path):
    first = f"[{faces[1:-1].split(',')[0]}]"
    alone = run(study_of(infused(faces=first, out=tmp_path / "one.zarr")), say=lambda text: None)
    with pytest.raises(StepscopeError, match="has one face, 'ann': there is no other"):
        reread(alone, Settings(("swapped",)))
    words = infused(faces=first, out=tmp_path / "none.zarr", adapter__scale=0.0)
    none = run(study_of(words), say=lambda text: None)
    with pytest.raises(StepscopeError, match="was made without an adapter"):
        reread(none, Settings())
