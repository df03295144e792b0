"""Sharpness against closed forms: the operators' eigenfunctions, and what a square around a face is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from stepscope.analysis.metrics.sharpness import (
    FACE_SPREAD,
    around,
    high_frequency,
    laplacian,
    luminance,
    measures,
    resized,
    tenengrad,
)

N = 65


def wave(k: int) -> np.ndarray:
    """cos(pi k x / (N - 1)): an eigenfunction of what mirrors at the first and last pixel."""
    row = np.cos(np.pi * k * np.arange(N) / (N - 1)).astype(np.float32)
    return np.tile(row, (1, N, 1))


@pytest.mark.parametrize("k", [1, 7, 32, 60])
def test_a_waves_laplacian_and_gradient_have_closed_forms(k: int) -> None:
    theta, x = np.pi * k / (N - 1), np.arange(N)
    eigenvalue = 2 * np.cos(theta) - 2
    assert laplacian(wave(k))[0] == pytest.approx(eigenvalue**2 * wave(k).var(), rel=1e-4)
    gradient = -8 * np.sin(theta) * np.sin(theta * x)
    assert tenengrad(wave(k))[0] == pytest.approx((gradient**2).mean(), rel=1e-3)


def test_a_checkerboard_is_all_laplacian_and_no_gradient() -> None:
    board = np.indices((N, N)).sum(0)[None] % 2 * 2.0 - 1
    assert laplacian(board)[0] == pytest.approx(64 * board.var(), rel=1e-6)
    assert tenengrad(board)[0] == 0
    assert high_frequency(board)[0] == pytest.approx(1, abs=1e-3)


def test_a_flat_image_is_not_sharp_and_has_no_spectrum() -> None:
    flat = np.full((1, N, N), 0.4, np.float32)
    np.testing.assert_allclose(measures(flat)[0, :2], 0, atol=1e-9)
    assert np.isnan(measures(flat)[0, 2])


def test_the_share_of_high_frequencies_is_a_share() -> None:
    low, high = wave(8), wave(56)  # 1/16 and 7/16 cycles a pixel
    assert high_frequency(low)[0] < 1e-3
    assert high_frequency(high)[0] > 0.999
    assert high_frequency(low + high)[0] == pytest.approx(0.5, abs=0.01)
    assert high_frequency(low + 2 * high)[0] == pytest.approx(0.8, abs=0.01)


def test_the_laplacian_is_scipys() -> None:
    rng = np.random.default_rng(0)
    image = rng.random((2, 33, 40))
    for grey, found in zip(image, laplacian(image), strict=True):
        assert found == pytest.approx(ndimage.laplace(grey, mode="mirror").var())


def test_frames_do_not_see_each_other() -> None:
    frames = np.random.default_rng(0).random((3, N, N)).astype(np.float32)
    np.testing.assert_allclose(measures(frames)[1], measures(frames[1:2])[0], rtol=1e-6)


def test_blur_lowers_all_and_noise_raises_all() -> None:
    rng = np.random.default_rng(0)
    image = ndimage.gaussian_filter(rng.random((N, N)), 1)[None]
    blurred = ndimage.gaussian_filter(image[0], 2)[None]
    noisy = image + rng.normal(0, 0.1, image.shape)
    assert (measures(blurred) < measures(image)).all()
    assert (measures(noisy) > measures(image)).all()


def test_luminance_is_bt601() -> None:
    colours = np.array([[[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]]], np.uint8)
    np.testing.assert_allclose(luminance(colours)[0, 0], [0.299, 0.587, 0.114, 1], rtol=1e-6)


def test_resizing_brings_the_shorter_side_without_aliasing() -> None:
    assert resized(np.zeros((2, 64, 96), np.float32), 32).shape == (2, 32, 48)
    fine = np.indices((64, 64)).sum(0)[None] % 2.0
    middle = resized(fine.astype(np.float32), 32)[:, 1:-1, 1:-1]
    assert middle.std() < 1e-6  # what is too fine is averaged away
    image = np.random.default_rng(0).random((1, 32, 32)).astype(np.float32)
    np.testing.assert_array_equal(resized(image, 32), image)


@given(
    middle=st.tuples(st.floats(-20, 150), st.floats(-20, 110)),
    spread=st.floats(0, 90),
)
def test_the_square_around_a_face_stays_inside(middle: tuple[float, float], spread: float) -> None:
    keypoints = np.array([middle] * 5) + np.linspace(-spread / 2, spread / 2, 5)[:, None] * [1, 0]
    rows, columns = around(keypoints, (90, 130))
    side = rows.stop - rows.start
    assert side == columns.stop - columns.start
    assert side == np.clip(np.ceil(FACE_SPREAD * np.ptp(keypoints[:, 0])), 1, 90)
    assert (rows.start, columns.start) >= (0, 0)
    assert rows.stop <= 90
    assert columns.stop <= 130


def test_the_square_is_centred_on_the_face() -> None:
    keypoints = np.array([[50.0, 40], [70, 40], [60, 50], [52, 60], [68, 60]])
    rows, columns = around(keypoints, (128, 128))
    assert (rows.start + rows.stop) / 2 == pytest.approx(50, abs=1)
    assert (columns.start + columns.stop) / 2 == pytest.approx(60, abs=1)
