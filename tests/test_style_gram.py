"""Gram distances are equation 5 of Gatys et al. on torchvision's layers, and do not see what is where."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from stepscope.analysis.metrics import style_gram
from stepscope.analysis.metrics.dinov2 import DEVIATION, MEAN
from stepscope.analysis.metrics.style_gram import CONVOLUTIONS, StyleGram, gram
from stepscope.hooks.errors import StepscopeError
from stepscope.probes.weights import WeightsError
from tests.fixtures import VGG_WIDTHS, save_vgg

SIZE = 32


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)


def metric(vgg: Path) -> StyleGram:
    return StyleGram(gram=str(vgg), gram_size=SIZE, device="cpu")


def as_torchvision_lays_it_out(network: str, file: Path) -> nn.Sequential:
    """The network's `features`: configurations E (19) and D (16) of torchvision.models.vgg.cfgs."""
    counts = {"vgg19": (2, 2, 4, 4, 4), "vgg16": (2, 2, 3, 3, 3)}[network]
    layers, given = [], 3
    for count, width in zip(counts, VGG_WIDTHS, strict=True):
        for _ in range(count):
            layers += [nn.Conv2d(given, width, 3, padding=1), nn.ReLU()]
            given = width
        layers.append(nn.MaxPool2d(2, 2))
    built = nn.Sequential(*layers)
    state = torch.load(file)
    built.load_state_dict({n.removeprefix("features."): v for n, v in state.items()})
    return built


@torch.no_grad()
def by_equation_5(features: nn.Sequential, images: np.ndarray) -> list[list[np.ndarray]]:
    """F (channel, position) of every image at conv1_1, ..., conv5_1, each after its rectifier."""
    mean, deviation = (torch.tensor(v)[:, None, None] for v in (MEAN, DEVIATION))
    x = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - mean) / deviation
    found, convolutions = [], 0
    for layer in features:
        x = layer(x)
        convolutions += isinstance(layer, nn.Conv2d)
        if isinstance(layer, nn.MaxPool2d):
            convolutions = 0
        elif isinstance(layer, nn.ReLU) and convolutions == 1:
            found.append([f.flatten(1).double().numpy() for f in x])
    return found


def equation_5(layers: list[list[np.ndarray]], one: int, other: int) -> float:
    total = 0.0
    for layer in layers:
        (n, m), (g, a) = layer[one].shape, (layer[i] @ layer[i].T for i in (one, other))
        total += ((g - a) ** 2).sum() / (4 * n**2 * m**2)
    return total / len(layers)


@pytest.mark.parametrize("network", CONVOLUTIONS)
def test_it_is_equation_5_on_torchvisions_layers(network, images, tmp_path):
    file = save_vgg(tmp_path / "vgg.pth", network)
    layers = by_equation_5(as_torchvision_lays_it_out(network, file), images)
    assert [f[0].shape for f in layers] == [
        (width, (SIZE >> k) ** 2) for k, width in enumerate(VGG_WIDTHS)
    ]
    found = metric(file).compare(images, images[:1])
    wanted = [equation_5(layers, i, 0) for i in range(3)]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-9)
    assert found[0] < 1e-9 * found[1:].min()  # a batch of another size rounds
    assert (found[1:] > 0).all()


def test_it_is_symmetric_and_an_image_is_at_0_from_itself(vgg, images):
    one, other = (
        metric(vgg).compare(*pair) for pair in ((images, images[::-1]), (images[::-1], images))
    )
    np.testing.assert_allclose(one, other, rtol=1e-5)
    np.testing.assert_array_equal(metric(vgg).compare(images, images), 0)


def test_a_gram_matrix_does_not_know_where_features_are_and_knows_which_go_together():
    features = torch.randn(2, 5, 6, 7, generator=torch.Generator().manual_seed(0))
    order = torch.randperm(42, generator=torch.Generator().manual_seed(1))
    moved = features.flatten(2)[..., order].reshape(features.shape)
    torch.testing.assert_close(gram(moved), gram(features))
    apart = features.clone()
    apart[:, 0] = moved[:, 0]  # one channel alone is moved: no longer with the others
    assert (gram(apart) - gram(features)).abs().max() > 0.1


def test_a_picture_of_another_size_is_brought_to_the_square(vgg):
    place = np.linspace(0, 255, SIZE)
    smooth = np.stack(np.broadcast_arrays(place[:, None], place, place[::-1, None]), -1)
    pair = np.stack([smooth, smooth[..., ::-1] / 2]).astype(np.uint8)
    large = pair.repeat(2, 1).repeat(3, 2)
    network = metric(vgg)
    assert (network.compare(large, pair) < 0.02 * network.compare(pair, pair[::-1])).all()


def test_weights_that_are_not_there_are_named_with_their_address_and_place(monkeypatch, tmp_path):
    def unreached(*args: object, **words: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreached)
    with pytest.raises(WeightsError) as caught:
        StyleGram().preflight()
    place = tmp_path / "checkpoints" / "vgg19-dcbb9e9d.pth"
    assert str(caught.value) == (
        f"gram='vgg19': '{place}' was not downloaded (no network): put "
        "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth there, or name a file with those weights, "
        "gram=FILE"
    )
    save_vgg(place, "vgg19")  # where it was put
    assert StyleGram().preflight() is None


def test_what_is_downloaded_is_checked_against_its_hash(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(
        torch.hub, "download_url_to_file", lambda *args, **words: asked.append((args, words))
    )
    place = str(tmp_path / "checkpoints" / "vgg16-397923af.pth")
    assert str(style_gram.weights("vgg16")) == place
    assert asked == [((style_gram.PUBLISHED["vgg16"], place, "397923af"), {"progress": False})]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("vgg", "gram='vgg': did you mean 'vgg1[69]'"),
        ("gone.pth", "gram: no file 'gone.pth'"),
    ],
)
def test_a_network_that_is_not_known_is_answered(given, message):
    with pytest.raises(StepscopeError, match=message):
        StyleGram(gram=given).preflight()


def test_a_file_of_another_network_is_refused_in_one_line(tmp_path):
    torch.save({"features.0.weight": torch.zeros(4, 3, 3, 3)}, tmp_path / "a.pth")
    with pytest.raises(
        WeightsError, match=r"cannot be read: it is neither torchvision's vgg19 nor"
    ) as e:
        StyleGram(gram=str(tmp_path / "a.pth")).preflight()
    assert "\n" not in str(e.value)
    (tmp_path / "b.pth").write_bytes(b"half a file")
    with pytest.raises(WeightsError, match=r"gram '.*b\.pth' cannot be read"):
        StyleGram(gram=str(tmp_path / "b.pth")).preflight()


def test_safetensors_hold_the_same(vgg, images, tmp_path):
    from safetensors.torch import save_file

    save_file(torch.load(vgg), tmp_path / "vgg.safetensors")
    found = metric(tmp_path / "vgg.safetensors").compare(images, images[:1])
    np.testing.assert_array_equal(found, metric(vgg).compare(images, images[:1]))
