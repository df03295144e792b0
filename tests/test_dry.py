"""`--dry` tells what a run would meet: models, faces, shapes, devices, and choices that matter."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stepscope.probes.faces import Face
from stepscope.probes.found import described, doubt, doubts
from stepscope.probes.needed import needs, parameters
from tests.shell import infused, listed, study_of, tiny

PORTRAITS = Path(__file__).parents[1] / "pocket" / "portraits"
POCKET = [
    "backbone=pocket_schnell",
    "adapter=pocket",
    "prompts=[portrait photo of a person]",
    "--dry",
]


def found(**changed: object) -> dict[str, object]:
    return {"box": [0.0, 0.0, 66.0, 70.0], "score": 1.0, "faces": 1} | changed


NOTES = {
    "faces without an adapter": (
        {"faces": "['FACE','OTHER']"},
        "adapter=none reads none: the samples of a prompt and seed are the same image",
    ),
    "a side": ({"height": 70}, "height=70 is rounded down to 64"),
    "a negative prompt": ({"negative_prompt": "ugly"}, "negative_prompt is not read"),
    "a batch": ({"batch_size": 8}, "batch_size=8: there are 1 sample"),
    "a comment": ({"prompts": "['# not one']"}, "'# not one' is taken as a prompt"),
    "a prompt with a comma": (
        {"prompts": "[a man, smiling]"},
        "[a man, smiling] is 2 prompts, parted by its commas; as one, 'prompts=[\"a man, smiling\"]'",
    ),
}


@pytest.mark.parametrize("name", NOTES)
def test_a_choice_that_matters_is_said(name, typed, face, tmp_path):
    changed, told = NOTES[name]
    np.save(tmp_path / "other.npy", np.ones(512, np.float32))
    words = {
        k: str(v).replace("FACE", face).replace("OTHER", str(tmp_path / "other.npy"))
        for k, v in changed.items()
    }
    answer = typed(tiny(**words), "--dry")
    assert answer.status == 0, answer.err
    assert any(line.startswith("note: ") and told in line for line in answer.out.splitlines())
    assert "note: " not in typed(tiny(), "--dry").out


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"adapter__window": "[0.0,0.1]"}, "holds none of the 2 steps: the adapter never runs"),
        ({"adapter__window": "[0.0,0.5]"}, "the adapter runs in 1 of 2 steps: 0, counted from 0"),
        (
            {"adapter__window": "[0.1,0.0]", "adapter__window_unit": "sigma"},
            "holds none of the 2 steps",
        ),
        ({"adapter__scale": "-1"}, "adapter.scale=-1.0 is negative"),
        ({"adapter__scale": "0"}, "adapter.scale=0.0: the adapter never runs"),
    ],
)
def test_a_window_that_is_closed_and_a_scale_below_one_are_said(changed, told, typed, face):
    assert told in typed(infused(faces=listed(face), **changed), "--dry").out


def test_what_is_not_here_is_listed_with_what_gets_it(typed, face):
    answer = typed(
        ["backbone=flux_dev", "adapter=infusenet", f"faces=[{face}]", "prompts=[a man]", "--dry"]
    )
    assert answer.status == 2
    (dev,) = (line for line in answer.out.splitlines() if line.startswith("  backbone"))
    assert "not here: accept the FLUX.1 [dev] non-commercial licence" in dev
    assert (
        "`hf download ByteDance/InfiniteYou --include 'infu_flux_v1.0/aes_stage2/*'`" in answer.out
    )


def test_all_that_is_wrong_is_told_at_once(typed, face, tmp_path):
    np.save(tmp_path / "bad.npy", np.zeros(3, np.float32))
    np.save(tmp_path / "latents.npy", np.zeros((4, 3, 3), np.float32))
    words = infused(faces=listed(face, "bad.npy"), device="cuda:99", initial_latents="latents.npy")
    answer = typed(words, "--dry")
    assert answer.status == 2
    assert answer.line.startswith("not ready: no device='cuda:99' here")
    assert "face bad" in answer.line
    assert "initial_latents 'latents.npy' is (1, 4, 3, 3)" in answer.line


def test_faces_are_told_as_they_are_found(typed, tmp_path):
    one = Image.open(PORTRAITS / "00_0.png").convert("RGB")
    two = Image.new("RGB", (2 * one.width, one.height))
    two.paste(one, (0, 0))
    two.paste(Image.open(PORTRAITS / "01_0.png").convert("RGB"), (one.width, 0))
    two.save(tmp_path / "two.png")
    answer = typed([*POCKET, f"faces=[{PORTRAITS / '00_0.png'},two.png]"])
    assert answer.status == 0, answer.err
    assert "  00_0  1 face, " in answer.out
    assert "  two   2 faces, the largest is taken" in answer.out


def test_a_doubtful_face_is_flagged():
    study = study_of([*infused(faces="[a.npy]")])
    assert doubt(study, found()) == ""
    assert "score 0.40 is low" in doubt(study, found(score=0.4))
    assert "the face is small" in doubt(study, found(box=[0.0, 0.0, 32.0, 40.0]))
    assert "2 faces found" in doubt(study, found(faces=2))
    assert described(found(faces=2)) == "2 faces, the largest is taken, 66 x 70 pixels, score 1.00"
    pocket = study_of(["backbone=pocket_dev", "adapter=pocket", "faces=[a.npy]", "prompts=[x]"])
    face = Face("ada", np.ones(512, np.float32), None, found(score=0.9), 0.0)
    (line,) = doubts(pocket, {"ada": face})
    assert line.startswith("face ada: score 0.90 is low")
    assert "drawn portraits only" in line


def test_a_model_s_size_is_that_of_its_numbers_in_the_study_s_type():
    study = study_of(["backbone=pocket_dev", "adapter=pocket", "faces=[a.png]", "prompts=[x]"])
    wanted = {need.role: need for need in needs(study)}
    assert [need.cure for need in wanted.values()] == [""] * 4
    files = (PORTRAITS.parent / "models" / "flux-dev").rglob("*.safetensors")
    assert wanted["backbone"].size == 4 * sum(map(parameters, files))
    half = study_of(
        ["backbone=pocket_dev", "backbone.dtype=bfloat16", "adapter=none", "prompts=[x]"]
    )
    assert [need.size for need in needs(half)] == [(wanted["backbone"].size or 0) / 2]


def test_a_folder_of_another_kind_is_no_backbone(typed):
    answer = typed(tiny(backbone__path=PORTRAITS))
    assert answer.status == 2
    assert answer.line.startswith("backbone flux_dev: no transformer/ in ")
