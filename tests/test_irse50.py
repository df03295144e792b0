"""IR-SE50 is the published network: its state dict's names, shapes and order, and its numbers."""

import json
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from stepscope.probes.irse50 import IRSE50
from stepscope.probes.recognisers import load_encoder
from stepscope.probes.weights import WeightsError
from tests.models import REFERENCE

FOLDER = REFERENCE / "arcface-ir-se50"
SHAPES: dict[str, list[int]] = json.loads((FOLDER / "state_dict.json").read_text())


def filled() -> Iterator[tuple[str, torch.Tensor]]:
    """The reference's weights, in the published order (shared/reference, README.md)."""
    index = {name: i for i, name in enumerate(sorted(SHAPES))}
    for name, shape in SHAPES.items():
        r = torch.randn(shape, generator=torch.Generator().manual_seed(index[name]))
        if name.endswith("num_batches_tracked"):
            yield name, torch.zeros(shape, dtype=torch.long)
        elif name.endswith("running_var"):
            yield name, 1 + 0.1 * r.abs()
        elif name.endswith(("running_mean", "bias")):
            yield name, 0.05 * r
        elif r.ndim == 1:
            yield name, 0.5 + 0.05 * r
        else:
            yield name, r / r[0].numel() ** 0.5


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return dict(filled())


def test_state_dict_is_the_published_one():
    ours = IRSE50().state_dict()
    assert [(name, list(value.shape)) for name, value in ours.items()] == list(SHAPES.items())


def test_embedding_is_the_published_one(weights):
    network = IRSE50()
    network.load_state_dict(weights)
    reference = np.load(FOLDER / "reference.npz")
    with torch.no_grad():
        found = network.eval()(torch.from_numpy(reference["input"]))
    np.testing.assert_allclose(found, reference["embedding"], rtol=0, atol=1e-5)


def test_encoder_reads_a_bgr_crop_as_minus_one_to_one(weights, tmp_path):
    """Through the door that a run takes: a published `.pth`, and pixels 0 to 255."""
    torch.save(weights, tmp_path / "ir.pth")
    encode = load_encoder(str(tmp_path / "ir.pth"), "cpu")
    crop = np.random.default_rng(0).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    network = IRSE50()
    network.load_state_dict(weights)
    scaled = torch.from_numpy(crop / 127.5 - 1).float().permute(2, 0, 1)[None]
    with torch.no_grad():
        expected = network.eval()(scaled)[0]
    np.testing.assert_allclose(encode(crop), expected, rtol=0, atol=1e-6)
    assert np.linalg.norm(encode(crop)) == pytest.approx(1, abs=1e-6)


def test_other_files_are_refused(weights, tmp_path):
    (tmp_path / "ir.txt").touch()
    weights = {k: v for k, v in weights.items() if k != "output_layer.3.bias"}
    torch.save(weights, tmp_path / "part.pth")
    for name, words in (("no.pth", "no file"), ("ir.txt", "neither"), ("part.pth", "not an IR-SE")):
        with pytest.raises(WeightsError, match=rf"adapter.encoder.*{words}"):
            load_encoder(str(tmp_path / name), "cpu")
