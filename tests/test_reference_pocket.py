"""The pocket judges: alike is what shares a look, or a hat; the ONNX file answers as the network did."""

import numpy as np
import pytest
import torch

from stepscope.analysis.metrics.reference_pocket import PocketHat, PocketLook
from stepscope.pocket.process import MODELS
from stepscope.pocket.shipped import from_onnx
from stepscope.pocket.unet import gallery, judges
from stepscope.probes.weights import WeightsError


@pytest.fixture(scope="module")
def pictures() -> gallery.Gallery:
    return gallery.paint(MODELS, "all", 40, gallery.HELD_OUT)


def seen(pictures: gallery.Gallery, rows: torch.Tensor) -> np.ndarray:
    return pictures.images[rows].permute(0, 2, 3, 1).numpy()


KINDS = {"looks": PocketLook, "hats": PocketHat}


@pytest.mark.parametrize(("what", "apart"), [("looks", 0.7), ("hats", 0.4)])
def test_pictures_of_one_design_are_alike_and_of_two_are_not(what, apart, pictures):
    likeness = KINDS[what]()
    rows = pictures.having(what)
    same = likeness.compare(seen(pictures, rows), seen(pictures, pictures.sharing(rows, what)))
    others = likeness.compare(seen(pictures, rows), seen(pictures, rows.roll(len(rows) // 2)))
    assert same.mean() - others.mean() > apart, (same.mean(), others.mean())


@pytest.mark.parametrize("what", judges.JUDGED)
def test_the_file_answers_as_the_network(what, pictures):
    rows = torch.arange(6)
    network = from_onnx(judges.Judge(), judges.file(MODELS, what))
    with torch.no_grad():
        wanted = network(pictures.floats(rows))
    found = KINDS[what]()
    alike = found.compare(seen(pictures, rows), seen(pictures, rows.roll(1)))
    np.testing.assert_allclose(alike, (wanted * wanted.roll(1, 0)).sum(1), atol=1e-4)


def test_another_onnx_file_is_refused():
    recogniser = MODELS / "insightface/models/pocket/recognition.onnx"
    with pytest.raises(WeightsError, match="is not a judge of looks or of hats"):
        PocketHat(str(recogniser)).preflight()
