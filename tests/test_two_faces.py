"""Two adapters that read a face: each has the embedding by its own encoder, whichever is named first."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from stepscope.probes.faces import RAW, UNIT, face_files
from stepscope.probes.models import faces_of
from stepscope.probes.typed import each_adapter
from tests.adapter_words import PULID, embedding, pulid_face, pulid_words
from tests.models import INFINITE_YOU
from tests.shell import Words, listed, study_of

OWN = {"infusenet": INFINITE_YOU / "infinite-you", "pulid": PULID / "pulid_flux_tiny.safetensors"}


def of_both(folder: Path, first: str, second: str, faces: str) -> Words:
    more: dict[str, Any] = {
        "adapter": f"[{first},{second}]",
        "adapter__path": OWN[first],
        f"beside__{second}__path": OWN[second],
    }
    return pulid_words(folder, faces=faces, steps=2, **more)


@pytest.fixture
def given(tmp_path) -> Path:
    """What PuLID and InfuseNet read of one person, in one file."""
    arrays, own = np.load(pulid_face(tmp_path, 0)), np.load(embedding(tmp_path, 5))
    np.savez(tmp_path / "both.npz", **arrays, face_embedding=own)
    return tmp_path / "both.npz"


def test_which_is_named_first_changes_no_image(given, typed, tmp_path):
    runs = []
    for first, second in (("pulid", "infusenet"), ("infusenet", "pulid")):
        answer = typed([*of_both(tmp_path, first, second, listed(given)), f"out={first}.zarr"])
        assert answer.status == 0, answer.err
        runs.append(xr.open_zarr(f"{first}.zarr").load())
    np.testing.assert_array_equal(runs[0].final_latents, runs[1].final_latents)
    words = of_both(tmp_path, "pulid", "infusenet", listed(given))
    study = study_of([one for word in words for one in each_adapter(word)])
    (face,) = faces_of(study, face_files(study.faces), "cpu").values()
    arrays = np.load(given)
    unit = arrays["face_embedding"] / np.linalg.norm(arrays["face_embedding"])
    np.testing.assert_allclose(face.given[UNIT], unit, atol=1e-6)
    np.testing.assert_array_equal(face.given[RAW], arrays["id_cond"].reshape(-1)[:512])


def test_a_file_for_one_of_them_is_refused_with_what_the_other_reads(typed, tmp_path):
    alone = {
        embedding(tmp_path, 0): "For another adapter beside it the .npz also has that one's arrays",
        pulid_face(
            tmp_path, 0
        ): "has no face_embedding of shape (512,): name a photo, a .npy, or a .npz",
    }
    for path, told in alone.items():
        answer = typed(of_both(tmp_path, "pulid", "infusenet", listed(path)))
        assert answer.status == 2
        assert told in answer.line
