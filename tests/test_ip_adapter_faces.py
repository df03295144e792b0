"""Full-face IP-Adapter and FaceID Plus, of which there is no reference, against diffusers' own pipeline."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from diffusers import StableDiffusionPipeline
from insightface.utils.face_align import norm_crop
from PIL import Image
from transformers import CLIPImageProcessorPil, CLIPVisionModelWithProjection

from stepscope.probes import check
from stepscope.probes.adapters.image_prompt import NEGATIVE, POSITIVE
from stepscope.probes.faces import face_files
from stepscope.probes.models import faces_of
from tests.adapter_words import IP_ADAPTER, PACK, face_id_plus, picture, unet_words
from tests.made_adapters import face_id_file, full_face_file
from tests.pictured import image_encoder
from tests.published import own_call
from tests.shell import Words, listed, study_of
from tests.test_faces import PORTRAITS


def plus_words(folder: Path, seeds: str = "0", **changed: Any) -> Words:
    named = {name.replace("__", "."): value for name, value in changed.items()}
    return [*face_id_plus(folder, [*seeds]), *(f"{name}={value}" for name, value in named.items())]


def final(typed: Any, words: Words, out: str) -> xr.Dataset:
    answer = typed([*words, f"out={out}"])
    assert answer.status == 0, answer.err
    return xr.open_zarr(out).load()


def loaded(path: Path) -> Any:
    pipe: Any = StableDiffusionPipeline.from_pretrained(IP_ADAPTER / "sd15")
    given = {"subfolder": "", "weight_name": path.name, "image_encoder_folder": None}
    pipe.load_ip_adapter(str(path.parent), **given)
    return pipe


def called(pipe: Any, run: xr.Dataset, embeds: torch.Tensor) -> Any:
    return own_call(pipe, run, 4.0, ip_adapter_image_embeds=[embeds])


def test_full_face_is_diffusers_own(typed, tmp_path):
    path, given = full_face_file(tmp_path), picture(tmp_path, 0, hidden=True)
    words = unet_words("sd15", adapter="ip_adapter", adapter__path=path, true_cfg=4.0)
    run = final(typed, [*words, f"faces={listed(given)}"], "run.zarr")
    both = np.load(given)
    embeds = torch.from_numpy(np.stack([both["negative_image_embeds"], both["image_embeds"]]))
    made = called(loaded(path), run, embeds)
    np.testing.assert_allclose(run.final_latents, made, rtol=0, atol=1e-4)
    assert (run.contribution.max("branch") > 0).all()


@pytest.mark.parametrize("shortcut", [False, True])
def test_face_id_plus_is_diffusers_own(shortcut, typed, tmp_path):
    words = plus_words(tmp_path, adapter__shortcut=str(shortcut).lower(), true_cfg=4.0)
    run = final(typed, words, "run.zarr")
    given = np.load(tmp_path / "plus_0.npz")
    pipe = loaded(tmp_path / "face_id_plus.bin")
    (projection,) = pipe.unet.encoder_hid_proj.image_projection_layers
    both = np.stack([given["negative_image_embeds"], given["image_embeds"]])
    projection.clip_embeds, projection.shortcut = torch.from_numpy(both), shortcut
    unit = torch.from_numpy(given["face_embedding"])[None, None, None]
    unit = unit / unit.norm()
    made = called(pipe, run, torch.cat([torch.zeros_like(unit), unit]))
    np.testing.assert_allclose(run.final_latents, made, rtol=0, atol=1e-4)


def test_its_versions_and_its_faces_differ_and_rows_of_a_batch_have_their_own(typed, tmp_path):
    one = final(typed, plus_words(tmp_path, "1"), "one.zarr")
    other = final(typed, plus_words(tmp_path, "1", adapter__shortcut="true"), "other.zarr")
    both = final(typed, plus_words(tmp_path, "01", batch_size=2), "both.zarr")
    np.testing.assert_allclose(both.final_latents[1:], one.final_latents, rtol=1e-4, atol=5e-5)
    for a, b in ((one.final_latents[0], other.final_latents[0]), both.final_latents):
        assert np.abs(a - b).max() > 1e-2


def test_a_recording_of_it_means_what_it_says(typed, tmp_path):
    answer = typed(plus_words(tmp_path), main=check.main)
    assert answer.status == 0, answer.out + answer.err


def test_a_photo_is_read_as_published(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    encoder, photo = image_encoder(tmp_path / "clip"), PORTRAITS / "00_0.png"
    own: dict[str, Any] = {"adapter__clip": encoder, "adapter__encoder": PACK / "recognition.onnx"}
    words = plus_words(tmp_path, adapter__detector=PACK, **own)
    study = study_of([*words, f"faces={listed(photo)}"])
    (read,) = faces_of(study, face_files(study.faces), "cpu").values()
    bgr = np.asarray(Image.open(photo).convert("RGB"))[:, :, ::-1].copy()
    crop = norm_crop(bgr, np.array(read.found["keypoints"], np.float32), image_size=224)
    pixels = CLIPImageProcessorPil()(images=Image.fromarray(crop), return_tensors="pt").pixel_values
    network = CLIPVisionModelWithProjection.from_pretrained(encoder).eval()
    with torch.no_grad():
        made, nothing = (
            network(one, output_hidden_states=True).hidden_states[-2].numpy()
            for one in (pixels, torch.zeros_like(pixels))
        )
    np.testing.assert_allclose(read.given[POSITIVE], made, rtol=0, atol=1e-5)
    np.testing.assert_allclose(read.given[NEGATIVE], nothing, rtol=0, atol=1e-5)
    assert abs(np.linalg.norm(read.embedding) - 1) < 1e-5


def test_its_mistakes_are_answered_in_one_line(typed, tmp_path):
    words = plus_words(tmp_path)
    assert (
        "is a FaceID Plus: adapter.shortcut=true" in typed([*words, "adapter.shortcut=null"]).line
    )
    other = face_id_file(tmp_path, with_lora=False)
    assert "is no FaceID Plus" in typed([*words, f"adapter.path={other}"]).line
    np.save(tmp_path / "face.npy", np.ones(512, np.float32))
    assert (
        "has no image_embeds and negative_image_embeds" in typed([*words, "faces=[face.npy]"]).line
    )
