"""docs/adapters.md: its tables have every adapter and backbone, its commands compose, its example works."""

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from diffusers import ControlNetModel, UNet2DConditionModel
from PIL import Image

from stepscope.probes import adapters, check
from stepscope.probes.adapters import ADAPTERS
from stepscope.probes.typed import hydra_words
from tests.adapter_words import IP_ADAPTER, unet_words
from tests.models import randomised
from tests.shell import study_of

PAGE = Path("docs/adapters.md").read_text()
CONF = Path("conf").resolve()


def test_the_tables_have_every_adapter_and_backbone():
    named = set(re.findall(r"^\| `(\w+)`", PAGE.split("## Backbones")[0], re.M))
    assert named == {kind.KIND for kind in ADAPTERS}
    table = PAGE.split("## Backbones")[1].split("Classifier-free")[0]
    known = {path.stem for path in (CONF / "backbone").glob("*.yaml")}
    assert {*re.findall(r"`(\w+)`", table)} >= known
    families = re.findall(r"^\| `(\w+)`.*?\| ([^|]+) \|", PAGE.split("## Backbones")[0], re.M)
    titles = {"SD 1.5": "sd15", "SDXL": "sdxl", "FLUX": "flux"}
    made_for = {name: {titles[one] for one in text.split(", ")} for name, text in families}
    assert made_for == {kind.KIND: {*kind.FAMILIES} for kind in ADAPTERS}


def commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", PAGE, re.S)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip()]


@pytest.mark.parametrize("line", commands())
def test_a_command_is_a_study(line):
    program, verb, *words = shlex.split(line, comments=True)
    assert (program, verb) == ("stepscope", "probe")
    study = study_of(hydra_words(words, "config"))
    assert study.adapter is not None


@pytest.fixture
def registered(tmp_path):
    before = list(ADAPTERS)
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    assert len([line for line in example.splitlines() if line.strip()]) < 50
    exec(compile(example, "docs/adapters.md", "exec"), {})
    (settings,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.S)
    (tmp_path / "mine" / "adapter").mkdir(parents=True)
    (tmp_path / "mine" / "adapter" / "edges.yaml").write_text(settings)
    yield tmp_path / "mine"
    adapters.ADAPTERS[:] = before


def test_the_example_is_an_adapter(registered, typed, tmp_path):
    unet = UNet2DConditionModel.from_pretrained(IP_ADAPTER / "sd15" / "unet")
    torch.manual_seed(0)
    network: Any = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4, 4, 8, 8))
    randomised(network, seed=0).save_pretrained(tmp_path / "edges")
    Image.fromarray(np.eye(64, dtype=np.uint8) * 255).save(tmp_path / "edges.png")
    words = unet_words("sd15", adapter="edges", adapter__path=tmp_path / "edges", steps=2)
    words += ["control_image=edges.png", "control_image_kind=keypoints"]
    place = ["--config-dir", str(registered)]
    for name, more in {"on": [], "off": ["adapter.scale=0.0"], "none": ["adapter=none"]}.items():
        kept = [w for w in words if name != "none" or not w.startswith(("adapter", "control"))]
        answer = typed([*place, *kept, *more, f"out={name}.zarr"])
        assert answer.status == 0, answer.err
    on, off, none = (xr.open_zarr(f"{name}.zarr").load() for name in ("on", "off", "none"))
    assert (on.contribution > 0).all()
    np.testing.assert_allclose(off.final_latents, none.final_latents, rtol=0, atol=1e-4)
    assert np.abs(on.final_latents - off.final_latents).max() > 1e-2
    checked = typed([*place, *words], main=check.main)
    assert checked.status == 0, checked.out + checked.err
