"""What metrics need whatever the run is can be found out before there is a run, all of it at once."""

import shutil
import sys
from pathlib import Path

import pytest
import xarray as xr

from stepscope.analysis.measure import Settings, preflight
from stepscope.analysis.metrics import METRICS
from stepscope.analysis.needs import unmeasured
from stepscope.hooks.errors import StepscopeError
from tests.fixtures import DINOV2_SIZE

PACK = "pocket/models/insightface/models/pocket"
OPTIONAL = ("lpips", "lpips_step")  # tests/lpips_alone.py has the library


@pytest.fixture
def no_lpips(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "lpips", None)  # an import of it fails


def lacking(metrics: list[str], settings: Settings) -> str:
    """The one line about all that is not there."""
    with pytest.raises(StepscopeError) as caught:
        preflight(metrics, settings)
    (line,) = str(caught.value).splitlines()
    return line


def test_nothing_is_said_where_nothing_is_missing(dinov2: Path, clip: Path, vgg: Path) -> None:
    here = Settings(
        dinov2=str(dinov2),
        clip=str(clip),
        gram=str(vgg),
        dinov2_size=DINOV2_SIZE,
        photos=["pocket/portraits"],
        recognisers=[PACK, f"{PACK}/recognition.onnx"],
        vae="pocket/models/flux-dev/vae",
    )
    assert preflight([name for name in METRICS if name not in OPTIONAL], here) is None


def test_a_metric_whose_models_are_the_runs_own_lacks_nothing_before_there_is_one() -> None:
    of_a_run = ["decode", "arcface", "arcface_final", "sharpness", "contrast", "chance", "latency"]
    assert preflight(of_a_run) is None


@pytest.mark.parametrize(
    ("metrics", "settings", "cure"),
    [
        (["dinov2"], {"dinov2": "./gone"}, r"dinov2: no folder '\./gone'"),
        (["dinov2"], {"dinov2": "facebook/dinov2-base"}, "`hf download facebook/dinov2-base`"),
        (["reference_look_pocket"], {"pocket_look": "gone"}, "pocket_look: no file 'gone'; name a judge"),
        (["perceptual_distance_pocket"], {"perceptual": "gone"}, "no file 'gone'; name perceptual="),
        (["chance"], {"photos": ["gone"]}, "photos: no file or folder 'gone'"),
        (["arcface"], {"recognisers": ["gone"]}, "no insightface pack 'gone'"),
        (["arcface"], {"recognisers": ["gone.pth"]}, "recognisers: no file 'gone.pth'"),
        (["decode"], {"vae": "gone"}, "vae: no folder with a config.json at 'gone'"),
        (["lpips", "lpips_step"], {"lpips": "alexnet"}, "known: alex, vgg, squeeze"),
        (["style_gram"], {"gram": "vgg18"}, "did you mean 'vgg1[69]'"),
        (["prompt_clip"], {}, "`hf download openai/clip-vit-large-patch14`"),
        (["reference_clip", "reference_clip_step"], {"clip": "./gone"}, r"clip: no folder '\./gone'"),
        (["reference_dinov2"], {}, "`hf download facebook/dinov2-base`"),
        (["reference_image"], {"references": ["gone.png"]}, "references: no file or folder 'gone.png'"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named(metrics, settings, cure, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))  # an empty one
    with pytest.raises(StepscopeError, match=cure) as caught:
        preflight(metrics, Settings(**settings))
    assert str(caught.value).startswith(f"metrics=[{','.join(metrics)}]: ")


def test_a_library_that_is_missing_is_named_once(no_lpips: None) -> None:
    line = lacking(["lpips", "contrast", "lpips_step"], Settings())
    assert line.startswith("metrics=[lpips,lpips_step]: lpips needs the packages lpips and torch")
    assert line.count("pip install lpips torchvision") == 1


def test_all_that_is_missing_is_said_at_once(no_lpips: None) -> None:
    gone = Settings(dinov2="./gone", photos=["gone.png"])
    line = lacking(["lpips", "dinov2", "contrast", "chance"], gone)
    parts = line.split("; metrics=")
    assert [part.removeprefix("metrics=").split(": ")[0] for part in parts] == [
        "[lpips]", "[dinov2]", "[chance]",
    ]  # fmt: skip
    assert "pip install lpips" in parts[0]
    assert parts[1].endswith("no folder './gone'")
    assert parts[2].endswith("photos: no file or folder 'gone.png'")


def test_weights_that_are_there_are_loaded(dinov2: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(dinov2, tmp_path / "dinov2"))
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    line = lacking(["dinov2"], Settings(dinov2=str(broken)))
    assert line.startswith(f"metrics=[dinov2]: dinov2 '{broken}' cannot be read: ")


def test_a_wrong_metric_is_answered_with_the_nearest() -> None:
    assert "did you mean 'dinov2'" in lacking(["dinov"], Settings())


def test_what_was_measured_whole_needs_nothing_any_more(
    measured_pocket: Path, tmp_path: Path
) -> None:
    names = ["arcface", "lpips", "latency"]
    assert unmeasured(measured_pocket, names) == ["lpips"]
    assert unmeasured(tmp_path / "not made yet.zarr", names) == names
    copied = Path(shutil.copytree(measured_pocket, tmp_path / "copy.zarr"))
    one = xr.Dataset({"measured_latency": (("sample",), [0])})
    one.to_zarr(copied, group="analysis", region={"sample": slice(1, 2)}, consolidated=False)
    assert unmeasured(copied, names) == ["lpips", "latency"]
