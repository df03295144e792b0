"""The detector, the recognisers, the read-outs and the autoencoder, through the doors they ship by."""

import importlib
import sys

import numpy as np
import onnxruntime
import pytest
import torch
from insightface.app import FaceAnalysis
from insightface.model_zoo.arcface_onnx import ArcFaceONNX
from insightface.utils import face_align
from PIL import Image

from stepscope.pocket import shipped
from stepscope.pocket.alignment import norm_crop
from stepscope.pocket.export import ScrfdOutputs
from stepscope.pocket.faults import broken, fault_map
from stepscope.pocket.networks import STRIDES, Detector, centres, embed
from stepscope.pocket.portraits import PORTRAITS, sittings
from stepscope.pocket.process import MODELS
from stepscope.pocket.vae import decibels, load_vae
from stepscope.pocket.verification import verify
from stepscope.pocket.world import render

PACK = MODELS / "insightface" / "models" / "pocket"


@pytest.fixture(scope="module")
def portraits() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The first six people's shipped files (24, 3, 128, 128), true keypoints, attributes."""
    people, attributes, nuisance = (t[:24] for t in sittings())
    _, points = render(people, attributes, nuisance)
    files = [np.asarray(Image.open(f)) for f in sorted(PORTRAITS.glob("*.png"))[:24]]
    images = torch.from_numpy(np.stack(files)).permute(0, 3, 1, 2).float() / 255
    return images, points, attributes


def bgr(image: torch.Tensor) -> np.ndarray:
    """As OpenCV would read it."""
    return np.ascontiguousarray((image.permute(1, 2, 0).flip(-1) * 255).round().byte().numpy())


def run(path, x: torch.Tensor) -> list[torch.Tensor]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return [torch.from_numpy(o) for o in session.run(None, {"data": x.numpy()})]


def test_norm_crop_agrees_with_insightface(portraits):
    images, points, _ = portraits
    ours = norm_crop(images[:4], points[:4])
    for image, keypoints, crop in zip(images, points, ours, strict=False):
        theirs = face_align.norm_crop(bgr(image), keypoints.numpy())[:, :, ::-1] / 255.0
        assert np.abs(crop.permute(1, 2, 0).numpy() - theirs).mean() < 0.5 / 255


@pytest.mark.parametrize("size", [640, 320, 160, 128])
def test_insightface_finds_every_portrait_and_its_keypoints(portraits, size):
    images, points, _ = portraits
    app = FaceAnalysis(name=str(PACK), providers=["CPUExecutionProvider"])
    app.prepare(ctx_id=-1, det_size=(size, size))
    errors = []
    for image, true in zip(images[:6], points, strict=False):
        faces = app.get(bgr(image))
        assert len(faces) == 1
        errors.append(np.linalg.norm(faces[0].kps - true.numpy(), axis=1))
        assert faces[0].normed_embedding.shape == (512,)
    assert np.median(errors) < 2


def test_onnx_files_compute_what_torch_does(portraits):
    crops = norm_crop(*portraits[:2])[:3] * 2 - 1
    for net, path in (
        (shipped.load_conditioner(), shipped.CONDITIONER),
        (shipped.load_judge(), shipped.JUDGE),
    ):
        torch.testing.assert_close(run(MODELS / path, crops)[0], net(crops), atol=1e-3, rtol=1e-3)
    pictures = (portraits[0][:1] * 255 - 127.5) / 128
    expected = ScrfdOutputs(shipped.load_detector())(pictures)
    for ours, theirs in zip(run(MODELS / shipped.DETECTOR, pictures), expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-3)


def test_the_conditioner_is_an_arcface_recogniser_to_insightface(portraits):
    net = ArcFaceONNX(str(MODELS / shipped.CONDITIONER))
    assert (net.input_size, net.input_mean, net.input_std) == ((112, 112), 127.5, 127.5)
    images, points, _ = portraits
    theirs = np.asarray(net.get_feat(face_align.norm_crop(bgr(images[0]), points[0].numpy())))[0]
    ours = embed(shipped.load_conditioner(), images[:1], points[:1])[0].numpy()
    assert ours @ theirs / np.linalg.norm(theirs) > 0.99


def test_both_recognisers_know_the_people_of_the_portraits(portraits):
    images, points, _ = portraits
    who = torch.arange(24) // 4
    for net in (shipped.load_conditioner(), shipped.load_judge()):
        figures = verify(embed(net, images, points), who)
        assert figures.eer < 0.02
        assert figures.ceiling > 0.7
        assert abs(figures.floor) < 0.15


def test_the_attribute_readout_reads_the_portraits(portraits):
    images, _, attributes = portraits
    answers = torch.stack([a.argmax(1) for a in shipped.load_attributes()(images)], 1)
    assert (answers == attributes).float().mean() > 0.97


def test_the_autoencoder_gives_portraits_back_from_unit_latents(portraits):
    x = portraits[0][:6] * 2 - 1
    vae = load_vae(MODELS / "flux-dev" / "vae")
    latents = vae.encoder(x).chunk(2, 1)[0]
    assert latents.shape == (6, 16, 32, 32)
    normal = (latents - vae.config["shift_factor"]) * vae.config["scaling_factor"]
    assert 0.8 < normal.std() < 1.25
    assert abs(normal.mean()) < 0.1
    assert decibels(x, vae.decoder(latents)).min() > 32


def test_anchors_of_every_stride_point_at_the_same_pixel():
    """A silent network's keypoints are its anchors, as seen in the full picture."""
    detector = Detector().eval()
    for weights in detector.head.parameters():
        torch.nn.init.zeros_(weights)
    for i, (level, stride) in enumerate(
        zip(detector(torch.zeros(1, 3, 64, 64)), STRIDES, strict=True)
    ):
        anchors = centres(64, stride, torch.device("cpu"))
        point = anchors + level[0, :, 5:7] * stride
        # Pixel 0 of a picture halved i times is the mean of the first 2^i pixels.
        torch.testing.assert_close(point, anchors + (2**i - 1) / 2)
        box = torch.cat([anchors - level[0, :, 1:3] * stride, anchors + level[0, :, 3:5] * stride])
        torch.testing.assert_close(box, torch.cat([point, point]))


def test_verification_counts_pairs():
    axes = torch.eye(3).repeat_interleave(2, 0)
    apart = verify(axes, torch.arange(6) // 2)
    assert (apart.eer, apart.same, apart.different) == (0.0, 3, 12)
    assert (apart.ceiling, apart.floor) == (1.0, 0.0)
    alike = verify(torch.ones(6, 1), torch.arange(6) // 2)
    assert alike.eer == 0.5


def test_faults_are_seen_where_the_picture_changed(portraits):
    images, points, _ = portraits
    torch.manual_seed(0)
    harmed, disc = broken(images, points)
    truth, sure = fault_map(harmed, images)
    assert truth.any()
    assert torch.equal(truth * sure, truth)
    far = torch.nn.functional.max_pool2d(disc[:, None], 8)[:, 0] < 0.01
    assert not truth[far].any()
    assert not fault_map(images, images)[0].any()


@pytest.mark.parametrize(
    "script", ["recogniser_a", "recogniser_b", "detector", "attributes", "vae"]
)
def test_every_script_smokes(script, tmp_path, monkeypatch, capsys):
    folders = ["--checkpoints", str(tmp_path / "c"), "--models", str(tmp_path / "m")]
    monkeypatch.setattr(sys, "argv", [script, "--smoke", *folders])
    importlib.import_module(f"stepscope.pocket.{script}").main()
    assert "3 steps" in capsys.readouterr().out
    assert (tmp_path / "c" / f"{script}.csv").exists()
    assert list(tmp_path.rglob("*.onnx" if script == "attributes" else "*.safetensors"))
    if script == "vae":
        monkeypatch.setattr(sys, "argv", ["wholeness", "--smoke", *folders])
        importlib.import_module("stepscope.pocket.wholeness").main()
        assert (tmp_path / "m" / "readout" / "wholeness.safetensors").exists()
