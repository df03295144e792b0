"""Identity is what insightface would say of the same images, and says why where it says nothing."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from insightface.app import FaceAnalysis
from insightface.model_zoo.arcface_onnx import ArcFaceONNX
from insightface.utils.face_align import norm_crop

from stepscope.analysis.measure import measure_all
from stepscope.analysis.metrics.arcface import FOUND, NO_FACE, NO_REFERENCE
from stepscope.analysis.metrics.panel import panel, pinned
from stepscope.analysis.runs import open_measured
from stepscope.hooks.errors import StepscopeError

PACK = "pocket/models/insightface/models/pocket"
IDENTITY = "pocket/models/infinite-you/identity.onnx"
CPU = ["CPUExecutionProvider"]
ALONG = ["decode", "arcface", "sharpness"]


@pytest.fixture(scope="module")
def app() -> Any:
    found = FaceAnalysis(PACK, providers=CPU)
    found.prepare(ctx_id=0, det_size=(128, 128))
    return found


@pytest.fixture
def copied(pocket_run: Path, tmp_path: Path) -> Path:
    """A recorded run to change."""
    return Path(shutil.copytree(pocket_run, tmp_path / "copy.zarr"))


def overwrite(path: Path, name: str, value: float) -> None:
    """Fill the second sample of a recorded variable."""
    old = xr.open_zarr(path)[name][1:2]
    made = xr.Dataset({name: (old.dims, np.full(old.shape, value, old.dtype))})
    made.to_zarr(path, region={"sample": slice(1, 2)}, write_empty_chunks=True)


def bgr(image: xr.DataArray) -> np.ndarray:
    return np.ascontiguousarray(image.values[:, :, ::-1])


def cosine(a: Any, b: Any) -> float:
    return float(a.ravel() @ b.ravel() / np.linalg.norm(a) / np.linalg.norm(b))


def test_the_judge_agrees_with_insightface(measured_pocket: Path, app: Any) -> None:
    run = open_measured(measured_pocket)
    judge = run.sel(recogniser="pocket")
    for i in range(run.sizes["sample"]):
        reference = app.models["recognition"].get_feat(bgr(run["face_crop"][i]))
        (face,) = app.get(bgr(run["image"][i]))
        assert judge["final_similarity"][i] == pytest.approx(
            cosine(face.embedding, reference), abs=1e-4
        )
        np.testing.assert_allclose(judge["final_keypoints"][i], face.kps, atol=1e-3)
        for step in range(run.sizes["step"]):
            (face,) = app.get(bgr(run["decoded"][i, step]))
            found = judge["similarity"].sel(alignment="detected")[i, step]
            assert found == pytest.approx(cosine(face.embedding, reference), abs=1e-4)


def test_the_fixed_alignment_is_the_final_images(measured_pocket: Path, app: Any) -> None:
    run = open_measured(measured_pocket)
    encoder = ArcFaceONNX(IDENTITY)
    (face,) = app.get(bgr(run["image"][0]))
    for name, model, reference in (
        ("pocket", app.models["recognition"], None),
        ("identity", encoder, run["face_embedding"][0].values),
    ):
        if reference is None:
            reference = model.get_feat(bgr(run["face_crop"][0]))
        values = run["similarity"].sel(recogniser=name)[0]
        for step in range(run.sizes["step"]):
            crop = norm_crop(bgr(run["decoded"][0, step]), face.kps)
            expected = cosine(model.get_feat(crop), reference)
            assert values.sel(alignment="fixed")[step] == pytest.approx(expected, abs=1e-4)
    last = run["similarity"].isel(step=-1)
    np.testing.assert_allclose(last.sel(alignment="fixed"), last.sel(alignment="detected"))
    np.testing.assert_allclose(last.sel(alignment="fixed"), run["final_similarity"])


def test_the_encoder_that_conditions_is_flagged(measured_pocket: Path) -> None:
    run = open_measured(measured_pocket)
    assert run["recogniser"].values.tolist() == ["pocket", "identity"]
    assert run["conditioning"].values.tolist() == [False, True]
    assert (run["found"] == FOUND).all()


def test_an_image_without_a_face_is_missing_and_says_so(copied: Path) -> None:
    overwrite(copied, "image", 40)
    overwrite(copied, "final_latents", 0)  # else the last step is that image
    measure_all([copied], ALONG)
    run = open_measured(copied)
    assert run["final_found"].values.tolist() == [[FOUND, FOUND], [NO_FACE, NO_FACE]]
    assert np.isnan(run["final_similarity"][1]).all()
    assert np.isnan(run["final_keypoints"][1]).all()
    assert np.isnan(run["similarity"].sel(alignment="fixed")[1]).all()
    assert (run["found"][1] == FOUND).all()  # the steps themselves still show one
    assert np.isfinite(run["similarity"].sel(alignment="detected")[1]).all()
    assert np.isfinite(run["sharpness"].sel(region="image")).all()
    assert np.isnan(run["sharpness"].sel(region="face")[1]).all()
    assert np.isfinite(run["sharpness"].sel(region="face")[0]).all()


def test_a_face_given_as_an_embedding_has_one_reference(copied: Path) -> None:
    overwrite(copied, "face_crop", 0)
    measure_all([copied], ["arcface_final"])
    run = open_measured(copied)
    assert run["final_found"].values.tolist() == [[FOUND, FOUND], [NO_REFERENCE, FOUND]]
    np.testing.assert_array_equal(
        np.isnan(run["final_similarity"]), run["final_found"] == NO_REFERENCE
    )
    assert np.isfinite(run["final_keypoints"]).all()


def test_a_sample_without_any_face_has_none(copied: Path) -> None:
    overwrite(copied, "face_crop", 0)
    overwrite(copied, "face_embedding", np.nan)
    measure_all([copied], ["arcface_final"])
    assert (open_measured(copied)["final_found"][1] == NO_REFERENCE).all()


def test_a_panel_takes_packs_and_files_and_flags_by_hash(tmp_path: Path) -> None:
    shutil.copytree(PACK, tmp_path / "models" / "other")
    (tmp_path / "ir_se50.pth").write_bytes(b"weights")
    about = {
        "configuration": {"adapter": {"detector": PACK, "encoder": "moved-away.pth"}},
        "weights": {
            "encoder/recognition_arcface_ir_se50.pth": (
                "9f1b3c1ec9b55e4ca1a5bd1f1cdd5d92bd1dc2fefb7a7d1f6e3e1de1cbdcb5b4"
            )
        },
    }
    given = ["other", str(tmp_path / "ir_se50.pth"), IDENTITY]
    found = panel(about, given, str(tmp_path))
    assert [one.name for one in found] == ["other", "ir_se50", "identity"]
    assert not any(one.conditioning for one in found)
    assert [one.detector for one in found] == ["other"] * 3
    about["weights"]["encoder/renamed.pth"] = found[1].files["ir_se50.pth"]
    assert [one.conditioning for one in panel(about, given, str(tmp_path))] == [False, True, False]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "model.download buffalo_l"),
        ([IDENTITY], "no insightface pack to find faces"),
        ([PACK, PACK], "names one twice"),
        (["nowhere.pth", PACK], "no file 'nowhere.pth'"),
        (["antilopev2"], "no insightface pack 'antilopev2'"),
    ],
)
def test_a_panel_that_cannot_judge(given: list[str] | None, message: str, tmp_path: Path) -> None:
    with pytest.raises(StepscopeError, match=message):
        panel({"configuration": {"adapter": None}}, given, str(tmp_path))


@pytest.mark.parametrize(
    ("image", "size"),
    [((128, 128), 128), ((64, 64), 128), ((200, 130), 224), ((864, 1152), 640)],
)
def test_the_detection_size_follows_the_image(image: tuple[int, int], size: int) -> None:
    assert pinned(None, image) == size
    assert pinned(320, image) == 320


@pytest.mark.parametrize(
    ("detector", "encoder", "found"),
    [
        (PACK, "pocket/models/infinite-you/identity.onnx", ["pocket", "identity"]),
        ("antelopev2", "h94/IP-Adapter/sdxl_models/image_encoder", ["buffalo_l"]),
        (PACK, "h94/IP-Adapter/sdxl_models/image_encoder", ["pocket"]),
        (None, "", ["buffalo_l"]),
    ],
)
def test_an_encoder_of_pictures_is_no_recogniser(detector, encoder, found, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "buffalo_l").symlink_to(Path(PACK).absolute())
    adapter = {"detector": detector, "encoder": encoder}
    names = [
        one.name for one in panel({"configuration": {"adapter": adapter}}, None, str(tmp_path))
    ]
    assert names == found
