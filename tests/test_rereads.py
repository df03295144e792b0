"""Identity of what was read again, against other samples and the run's own end; chance and the null."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from stepscope.analysis.evidence import Evidence
from stepscope.analysis.measure import Settings, measure_all
from stepscope.analysis.metrics.blur_null import bisect, blur
from stepscope.analysis.metrics.chance import mean_cosine_to_others
from stepscope.analysis.metrics.contrast import contrasts
from stepscope.analysis.metrics.perceptual_pocket import PocketDistance, distances
from stepscope.analysis.runs import open_measured, open_recorded
from stepscope.hooks.errors import StepscopeError
from stepscope.probes.faces import FaceReader, Finder, person
from stepscope.probes.recognisers import load_encoder
from stepscope.probes.reread import Settings as Again
from stepscope.probes.reread import reread

PACK = "pocket/models/insightface/models/pocket"
IDENTITIES = ["arcface_carried", "arcface_swapped", "arcface_committed"]


def quiet(text: str) -> None:
    return


@pytest.fixture(scope="module")
def again(measured_pocket: Path, tmp_path_factory) -> Path:
    """A measured run of two faces, read again whole, and measured of that too."""
    path = tmp_path_factory.mktemp("again") / "schnell.zarr"
    shutil.copytree(measured_pocket, path)
    reread(path, Again(), quiet)
    measure_all([path], [*IDENTITIES, "blur_null", "contrast"])
    measure_all([path], ["chance"], Settings(photos=("pocket/portraits",)))
    return path


@pytest.fixture(scope="module")
def run(again: Path) -> xr.Dataset:
    return open_measured(again)


def test_committed_from_the_end_is_the_run_and_from_the_start_knows_no_face(run) -> None:
    np.testing.assert_allclose(
        run["committed_similarity"].sel(off_from=4), run["final_similarity"], atol=5e-3
    )
    off = run["decoded_committed"].sel(off_from=0).values.astype(int)
    assert np.abs(off[0] - off[1]).max() <= 1  # one prompt, one seed, nobody's face
    end = run["decoded_committed"].sel(off_from=4).values.astype(int)
    assert np.abs(end - run["image"].values).max() <= 1
    assert (run["committed_found"] == 1).all()


def test_at_pure_noise_a_swapped_face_is_as_predicted_for_the_other(run) -> None:
    found = run["swapped_similarity"].sel(alignment="detected").isel(step=0)
    predicted = run["similarity"].sel(alignment="detected").isel(step=0)
    np.testing.assert_allclose(found.sel(toward="other"), predicted.values[::-1], atol=5e-3)
    assert (found.sel(toward="own") < found.sel(toward="other")).all()


def test_latents_carry_nothing_at_noise_and_the_face_at_the_end(run) -> None:
    judged = run["carried_similarity"].sel(recogniser="pocket", alignment="fixed")
    end = run["similarity"].sel(recogniser="pocket", alignment="fixed")
    assert (judged.isel(step=0) < 0.35).all()
    np.testing.assert_allclose(judged.isel(step=-1), end.isel(step=-1), atol=0.1)


def test_evidence_gives_the_curves_by_name(run) -> None:
    evidence = Evidence({}, "pocket_dev", "pocket_schnell", resamples=99)
    for values in (evidence.carried(run), evidence.other_face(run), evidence.blur_null(run)):
        assert values.dims == ("sample", "step")
    committed = evidence.committed(run)
    assert committed.dims == ("sample", "adapter_steps")
    assert committed["adapter_steps"].values.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(committed["sigma"], [1, 0.75, 0.5, 0.25, 0], atol=1e-6)


def test_measured_once_it_is_left_alone(again) -> None:
    lines: list[str] = []
    measure_all([again], IDENTITIES, None, lines.append)
    assert lines == []


def test_of_some_samples_the_others_are_not_measured(measured_pocket, tmp_path) -> None:
    path = Path(shutil.copytree(measured_pocket, tmp_path / "some.zarr"))
    with pytest.raises(StepscopeError, match=r"stepscope reread .* readings=\[carried\]"):
        measure_all([path], ["arcface_carried"])
    reread(path, Again(readings=("carried",), faces=("01_0",)), quiet)
    measure_all([path], ["arcface_carried"])
    some = open_measured(path)
    assert np.isnan(some["carried_similarity"][0]).all()
    assert (some["carried_found"][0] == 0).all()  # not measured, which is not: no face
    assert np.isfinite(some["carried_similarity"][1]).all()
    evidence = Evidence({}, "pocket_dev", "pocket_schnell")
    assert evidence.carried(some)["face"].values.tolist() == ["01_0"]


def test_a_reading_that_is_unfinished_or_lost_a_file(again, tmp_path) -> None:
    path = Path(shutil.copytree(again, tmp_path / "lost.zarr"))
    done = xr.Dataset({"done": (("sample",), np.array([True, False]))})
    done.to_zarr(path / "reread" / "carried", mode="r+", consolidated=False)
    found = open_recorded(path)
    assert "carried_x0" not in found
    assert "swapped_x0" in found
    shutil.rmtree(path / "reread" / "swapped" / "swapped_x0" / "c" / "1")
    with pytest.raises(StepscopeError, match=r"swapped_x0 of its reading lacks 1 of its files"):
        open_recorded(path)


def test_chance_is_the_other_persons_reference_and_the_ceiling_ones_other_photos(run) -> None:
    encode = load_encoder(f"{PACK}/recognition.onnx", "cpu")
    reader = FaceReader(Finder(PACK, "~/.insightface", "cpu"), f"{PACK}/recognition.onnx", "cpu")
    first, second = (encode(crop[:, :, ::-1].copy()) for crop in run["face_crop"].values)
    judged = run.sel(recogniser="pocket")
    np.testing.assert_allclose(judged["chance"], [first @ second] * 2, atol=1e-5)
    for face, known, ceiling in zip(("00", "01"), (first, second), judged["ceiling"], strict=True):
        paths = [Path(f"pocket/portraits/{face}_{k}.png") for k in (1, 2, 3)]
        others = [reader.read(path.stem, path).embedding for path in paths]
        assert float(ceiling) == pytest.approx(
            np.mean([known @ other for other in others]), abs=1e-4
        )
    assert (judged["ceiling"] > judged["chance"] + 0.5).all()


def test_one_photo_a_person_has_no_ceiling(measured_pocket, tmp_path) -> None:
    path = Path(shutil.copytree(measured_pocket, tmp_path / "run.zarr"))
    measure_all([path], ["chance"])
    found = open_measured(path)
    assert np.isfinite(found["chance"]).all()
    assert np.isnan(found["ceiling"]).all()


def test_who_is_who_by_name() -> None:
    assert [person(name) for name in ("ann", "ann_2", "ann_at_work", "00_0")] == [
        "ann", "ann", "ann_at_work", "00",
    ]  # fmt: skip
    known = np.eye(512)[[0, 0, 1]]
    np.testing.assert_array_equal(mean_cosine_to_others(known, ["a", "a", "b"]), [0, 0, 0])
    np.testing.assert_array_equal(mean_cosine_to_others(known, ["a", "b", "b"]), [0.5, 1, 0])
    assert np.isnan(mean_cosine_to_others(known[:1], ["a"])).all()


def test_the_null_has_x0s_sharpness_and_at_the_end_is_the_image(run) -> None:
    face = {"region": "face", "measure": "laplacian"}
    x0, null = run["sharpness"].sel(face), run["null_sharpness"].sel(face)
    blur = run["null_blur"].values
    assert (blur[:, 0] > 0.3).all()
    np.testing.assert_allclose(null.values[blur > 0], x0.values[blur > 0], rtol=0.02)
    assert (blur[:, -1] == 0).all()
    fixed = run["similarity"].sel(alignment="fixed").isel(step=-1)
    np.testing.assert_allclose(run["null_similarity"].isel(step=-1), fixed, atol=5e-3)
    np.testing.assert_allclose(
        run["null_contrast"].isel(step=-1), run["contrast"].isel(step=-1), atol=1e-3
    )


def test_bisection_finds_where_a_falling_function_has_a_value() -> None:
    assert bisect(lambda s: np.exp(-s), np.exp(-2.0), 8.0) == pytest.approx(2.0, abs=2e-3)
    assert bisect(lambda s: np.exp(-s), 1.5, 8.0) == 0.0  # sharper than it ever is
    assert bisect(lambda s: np.exp(-s), 0.0, 8.0) == pytest.approx(8.0, abs=2e-3)
    flat = np.full((9, 9, 3), 77, np.uint8)
    np.testing.assert_array_equal(blur(flat, 2.0), flat)


def test_contrast_is_the_standard_deviation_of_luminance() -> None:
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, -1)
    frames = np.stack([board, board // 2, np.zeros_like(board)])
    points = np.array([[20.0, 20], [40, 20], [30, 30], [22, 40], [38, 40]])
    found = contrasts(frames, points)
    np.testing.assert_allclose(found[0], [0.5, 0.5], atol=5e-3)
    np.testing.assert_allclose(found[1], found[0] * 127 / 255, atol=1e-3)
    np.testing.assert_array_equal(found[2], 0)
    assert np.isnan(contrasts(frames, points * np.nan)[:, 1]).all()


def test_the_pocket_distance_is_lpips_formula_over_named_layers() -> None:
    a, b = np.array([[[3.0, 0], [0, 2]]]), np.array([[[0.0, 5], [0, 7]]])
    # at one place orthogonal (squared difference 2), at the other parallel (0); two such layers
    np.testing.assert_allclose(distances([a, a], [b, b]), [2.0], atol=1e-6)
    images = np.random.default_rng(0).integers(0, 256, (2, 112, 112, 3), dtype=np.uint8)
    likeness = PocketDistance()
    np.testing.assert_allclose(likeness.compare(images, images), 0, atol=1e-6)
    there, back = likeness.compare(images, images[::-1]), likeness.compare(images[::-1], images)
    np.testing.assert_allclose(there, back, rtol=1e-5)
    assert (there > 0.1).all()
    assert "not LPIPS" in PocketDistance.what
    with pytest.raises(StepscopeError, match="is not the pocket recogniser"):
        PocketDistance("pocket/models/infinite-you/identity.onnx").network()
    with pytest.raises(StepscopeError, match="perceptual: no file 'nowhere'"):
        PocketDistance("nowhere").model()
