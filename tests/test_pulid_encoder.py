"""From a photo to what PuLID reads: the networks are the published ones, the steps are closed forms.

`reference.npz` holds what published classes gave (EVAVisionTransformer of PuLID's eva_clip at width 128,
two heads, 22 blocks, 4 x 4 patches; facexlib's BiSeNet) with weights by the rule of `filled`. Inputs are
normal numbers of the seeds 1000 and 1001. `state_dict.json`: their names and shapes at full size.
"""

import json
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from stepscope.probes.adapters.bisenet import BiSeNet, load_bisenet
from stepscope.probes.adapters.eva_clip import EvaClip, built, load_eva_clip
from stepscope.probes.adapters.pulid_encoder import (
    OUTSIDE,
    TEMPLATE,
    PulidEncoder,
    as_clip_sees,
    face_features,
    face_of,
)
from stepscope.probes.recognisers import aligned
from stepscope.probes.weights import WeightsError
from tests.models import REFERENCE

FOLDER = REFERENCE / "pulid-photo"
PUBLISHED: dict[str, dict[str, list[int]]] = json.loads((FOLDER / "state_dict.json").read_text())
TINY = {"width": 128, "inner": 341, "depth": 22, "side": 14, "grid": 4, "output": 24}


@pytest.fixture(scope="module")
def reference() -> dict[str, np.ndarray]:
    with np.load(FOLDER / "reference.npz") as file:
        return dict(file)


def filled(names: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The reference's weights, by the place of a name among all in order."""
    found = {}
    for i, name in enumerate(sorted(names)):
        shape = tuple(names[name].shape)
        r = torch.randn(shape, generator=torch.Generator().manual_seed(i))
        if name.endswith("num_batches_tracked"):
            found[name] = torch.zeros(shape, dtype=torch.long)
        elif name.endswith("running_var"):
            found[name] = 1 + 0.1 * r.abs()
        elif name.endswith(("running_mean", "bias")):
            found[name] = 0.05 * r
        else:
            found[name] = 0.5 + 0.05 * r if r.ndim == 1 else r / r[0].numel() ** 0.5
    return found


@pytest.fixture(scope="module")
def tower() -> EvaClip:
    with torch.device("meta"):
        names = EvaClip(**TINY).state_dict()
    return built(filled(names))


def noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_eva_clip_is_the_published_one(tower, reference):
    output, hidden = tower(noise(1000, 2, 3, 56, 56))
    np.testing.assert_allclose(output, reference["clip_output"], rtol=0, atol=1e-5)
    # they grow over the blocks, to 10
    np.testing.assert_allclose(hidden, reference["clip_hidden"], rtol=1e-5, atol=1e-5)


def test_parts_of_a_face_are_the_published_ones(reference):
    network = BiSeNet()
    network.load_state_dict(filled(network.state_dict()))
    found = network.eval()(noise(1001, 1, 3, 64, 96))[..., ::4, ::4]
    np.testing.assert_allclose(found, reference["parsing"], rtol=0, atol=1e-5)


def test_the_published_names_fit_strictly():
    """At full size; rotary tables are made anew, and the text's tower is not read."""
    for file, prefix, make in (
        (
            "EVA02_CLIP_L_336_psz14_s6B.pt",
            "visual.",
            lambda: EvaClip(width=1024, inner=2730, depth=24, side=14, grid=24, output=768),
        ),
        ("parsing_bisenet.pth", "", BiSeNet),
    ):
        with torch.device("meta"):
            ours = {prefix + k: list(v.shape) for k, v in make().state_dict().items()}
        assert ours == {k: v for k, v in PUBLISHED[file].items() if "rope.freqs_" not in k}


@pytest.mark.parametrize("nested", [False, True])
def test_the_tower_is_read_from_the_file_of_both(nested, tower, tmp_path):
    file = {f"visual.{name}": weight for name, weight in tower.state_dict().items()}
    file |= {"text.logit_scale": torch.ones(()), "visual.rope.freqs_cos": torch.ones(16, 64)}
    torch.save({"module": file} if nested else file, tmp_path / "clip.pt")
    read = load_eva_clip(str(tmp_path / "clip.pt"))
    image = noise(0, 1, 3, 56, 56)
    torch.testing.assert_close(read(image), tower(image), rtol=0, atol=0)


def test_other_files_are_refused(tower, tmp_path):
    torch.save({"visual.cls_token": torch.zeros(1, 1, 8)}, tmp_path / "other.pt")
    few = {f"visual.{k}": v for k, v in tower.state_dict().items() if k != "norm.bias"}
    torch.save(few, tmp_path / "few.pt")
    (tmp_path / "text.pt").write_text("no weights")
    for load, key in ((load_eva_clip, "clip"), (load_bisenet, "parsing")):
        for name, words in (
            ("no.pt", "no file"),
            ("other.pt", ""),
            ("few.pt", ""),
            ("text.pt", ""),
        ):
            with pytest.raises(WeightsError, match=f"adapter.{key}.*{words}"):
                load(str(tmp_path / name))


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (600, 640, 3), dtype=np.uint8)


def test_a_face_is_moved_to_its_template():
    """By whole pixels here, so that none is interpolated; beyond the edge it is grey."""
    image = picture()
    inside = face_of(image, TEMPLATE + [100, 50])[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(inside, image[50:562, 100:612, ::-1] / 255, atol=1e-6)
    over = face_of(image, TEMPLATE - [40, 0])[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(over[:, 40:], image[:512, :472, ::-1] / 255, atol=1e-6)
    np.testing.assert_allclose(over[:, :40] * 255, np.broadcast_to(OUTSIDE[::-1], (512, 40, 3)))


def test_a_face_is_turned_and_scaled():
    """A smooth picture, seen half as large and turned by a right angle: as numpy turns it."""
    y, x = np.mgrid[:256, :256]
    smooth = np.stack([y / 2, x / 2, (x + y) / 4], -1).astype(np.uint8)
    large = cv2.resize(smooth, (512, 512), interpolation=cv2.INTER_LINEAR)
    keypoints = np.stack([255 - TEMPLATE[:, 1] / 2, TEMPLATE[:, 0] / 2], 1)
    found = face_of(smooth, keypoints)[0].permute(1, 2, 0).numpy() * 255
    expected = np.rot90(large, 1)[:, :, ::-1]
    assert np.abs(found - expected)[8:-8, 8:-8].max() <= 2  # levels of 255


def test_features_are_grey_on_white():
    face = torch.rand(1, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    background = torch.zeros(1, 1, 4, 5, dtype=torch.bool)
    background[..., :2] = True
    found = face_features(face, background)
    red, green, blue = face[0]
    grey = 0.299 * red + 0.587 * green + 0.114 * blue
    torch.testing.assert_close(found[0, :, :, 2:], grey[:, 2:].expand(3, -1, -1))
    assert (found[..., :2] == 1).all()
    torch.testing.assert_close(face_features(face, None)[0], grey.expand(3, -1, -1))


def test_clip_sees_the_middle_of_white_as_white():
    seen = as_clip_sees(torch.ones(1, 3, 512, 512), 336)
    expected = (1 - torch.tensor([0.48145466, 0.4578275, 0.40821073])) / torch.tensor(
        [0.26862954, 0.26130258, 0.27577711]
    )
    torch.testing.assert_close(seen.mean((0, 2, 3)), expected)


class Halved(BiSeNet):
    """The left half is the neck, and the rest is skin."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(1, 19, *image.shape[2:])
        logits[:, 14, :, : image.shape[3] // 2], logits[:, 1, :, image.shape[3] // 2 :] = 1, 1
        return logits


def test_a_photo_is_read_step_by_step(tower):
    """The embedding as it is, the class output of unit norm; what is around the face does not matter."""
    image, keypoints = picture(), (TEMPLATE + [100, 50]).astype(np.float32)
    embed = lambda crop: crop.reshape(-1)[:512].astype(np.float32)  # noqa: E731
    seen = PulidEncoder(embed, tower, Halved())(image, keypoints)
    np.testing.assert_array_equal(seen.raw, embed(aligned(image, keypoints)))
    face = torch.from_numpy(image[50:562, 100:612, ::-1] / np.float32(255)).permute(2, 0, 1)[None]
    background = torch.arange(512) < 256
    features = face_features(face, background.expand(1, 1, 512, 512))
    output, hidden = tower(as_clip_sees(features, 56))
    np.testing.assert_allclose(seen.clip, output[0] / output[0].norm(), atol=1e-5)
    np.testing.assert_allclose(seen.hidden, hidden[0], rtol=1e-4, atol=1e-4)
    assert seen.hidden.shape == (5, 17, 128)
    changed = image.copy()
    changed[:, :300] = picture(1)[:, :300]
    again = PulidEncoder(embed, tower, Halved())(changed, keypoints)
    np.testing.assert_allclose(again.clip, seen.clip, atol=1e-5)
    whole = [PulidEncoder(embed, tower, None)(one, keypoints).clip for one in (image, changed)]
    assert np.abs(whole[0] - whole[1]).max() > 1e-4
