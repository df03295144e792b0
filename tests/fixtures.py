"""What tests share: recorded runs, made once, and the command line in this process."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jaxtyping

import tests.typecheck  # noqa: F401

# Before anything of ours is imported: jaxtyping shapes and plain types alike, by beartype.
jaxtyping.install_import_hook(
    [f"stepscope.{room}" for room in ("hooks", "probes", "analysis")], "tests.typecheck.checked"
)

import stepscope.probes.quiet  # noqa: E402, F401  isort: skip

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
import xarray as xr  # noqa: E402
from filelock import FileLock  # noqa: E402

from stepscope.hooks import Capture, record  # noqa: E402
from tests.cases import CASES, Case, Recorded, wiring  # noqa: E402
from tests.shell import PUBLISHED, Answer, run_command  # noqa: E402

torch.set_num_threads(1)


def tried(case: Case) -> Any:
    """A case as a parameter; without guidance, one whose guided twin is tried is marked slow."""
    twin = case.branches == 1 and f"{case.name}_cfg" in CASES
    slow = twin and case.name not in ("flux", "infusenet", "sd")
    return pytest.param(case, id=case.name, marks=[pytest.mark.slow] * slow)


@pytest.fixture(params=[tried(case) for case in CASES.values()])
def case(request) -> Case:
    return request.param


@pytest.fixture
def unchecked(monkeypatch) -> None:
    """As in a user's process, where annotations are not checked and a wrong value meets our own words."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture
def typed(capsys, tmp_path, monkeypatch):
    """`typed(words)`: `python -m probes` in an empty folder, and what it answered."""
    monkeypatch.chdir(tmp_path)

    def of(words: list[str], *more: str, **entry: Any) -> Answer:
        status = run_command([*words, *more], **entry)
        return Answer(status, *capsys.readouterr())

    return of


@pytest.fixture
def face(tmp_path) -> str:
    """A face as a `.npy`: the reference's embedding."""
    np.save(tmp_path / "ann.npy", PUBLISHED["dev/face_embedding"].reshape(512))
    return str(tmp_path / "ann.npy")


@pytest.fixture(scope="session")
def ann(tmp_path_factory) -> Path:
    """A face as a `.npy`, of random numbers. Who changes it puts it back."""
    path = tmp_path_factory.mktemp("faces") / "ann.npy"
    np.save(path, np.random.default_rng(0).normal(size=512).astype(np.float32))
    return path


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory, ann) -> xr.Dataset:
    """The grid of `tests.killing`, made by one process that nobody stops."""
    from tests.grids import SAMPLES, values
    from tests.killing import words

    path = tmp_path_factory.mktemp("undisturbed") / "run.zarr"
    assert run_command(words(ann, path)) == 0
    seen = values(path).load()
    assert seen.done.values.tolist() == [True] * SAMPLES
    return seen


@pytest.fixture(scope="module")
def forks(ann):
    """`forks(path, seconds, ...)`: see `tests.grids.forking`."""
    from tests.grids import forking

    with forking(ann) as made:
        yield made


@pytest.fixture(scope="module")
def sd() -> Any:
    """A Stable Diffusion pipeline of the test file's own, which has been called."""
    from tests.models import stable_diffusion
    from tests.small import SMALL

    pipe = stable_diffusion()
    pipe("a man", **SMALL)  # a first call sets attributes of the pipeline's own
    return pipe


@pytest.fixture(scope="session")
def recorded(tmp_path_factory):
    """`recorded(case)`: two samples of that case with velocities, recorded once."""
    found: dict[str, Recorded] = {}

    def of(case: Case) -> Recorded:
        if case.name not in found:
            case()  # a first call sets attributes of the pipeline's own
            path = tmp_path_factory.mktemp("recorded") / f"{case.name}.zarr"
            around = {"before": wiring(case.pipe)}
            with record(case.pipe, path, Capture(velocity=True)):
                around["during"] = wiring(case.pipe)
                images = case(seeds=(0, 1))
            around["after"] = wiring(case.pipe)
            found[case.name] = Recorded(path, xr.open_zarr(path).load(), images, around)
        return found[case.name]

    return of


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """What `make` leaves at a path, made by the first of the processes that test (xdist)."""
    base = factory.getbasetemp()
    path = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with FileLock(f"{path}.lock"):
        if not Path(f"{path}.whole").exists():
            shutil.rmtree(path, ignore_errors=True)  # of a process whose making failed
            make(path)
            Path(f"{path}.whole").touch()
    return path


@pytest.fixture(scope="session")
def pocket_run(tmp_path_factory) -> Path:
    """A run of the pocket schnell, two faces, four steps. Read it, or measure a copy."""
    from stepscope.probes.composing import composed
    from stepscope.probes.run import run
    from stepscope.probes.study import Study

    faces = "faces=[pocket/portraits/00_0.png,pocket/portraits/01_0.png]"
    words = ["backbone=pocket_schnell", "adapter=pocket", faces, "batch_size=2"]
    words += ["prompts=[portrait photo of a person]"]

    def make(path: Path) -> None:
        run(Study.from_config(composed([*words, f"out={path}"])), say=lambda text: None)

    return once(tmp_path_factory, "pocket.zarr", make)


@pytest.fixture(scope="session")
def measured_pocket(pocket_run, tmp_path_factory) -> Path:
    """A copy of `pocket_run`, measured by what figures need. Read it, or change a copy."""
    from stepscope.analysis.measure import measure_all

    def make(path: Path) -> None:
        shutil.copytree(pocket_run, path)
        measure_all([path], ["decode", "arcface", "sharpness", "latency"])

    return once(tmp_path_factory, "measured.zarr", make)


DINOV2_SIZE = 28


@pytest.fixture(scope="session")
def dinov2(tmp_path_factory) -> Path:
    """A tiny DINOv2 with random weights, in the published layout."""
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("dinov2")
    config = Dinov2Config(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=DINOV2_SIZE,
        patch_size=14,
    )
    Dinov2Model(config).save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def clip(tmp_path_factory) -> Path:
    """A tiny CLIP with random weights, in the published layout."""
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    path, size = tmp_path_factory.mktemp("clip"), 30
    common = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    words = [
        "<|startoftext|>",
        "<|endoftext|>",
        *(f"{c}</w>" for c in "abcdefghijklmnop"),
        *"abcdef",
    ]
    config = CLIPConfig(
        text_config={**common, "vocab_size": len(words), "max_position_embeddings": 12,
                     "bos_token_id": 0, "eos_token_id": 1},
        vision_config={**common, "image_size": size, "patch_size": 10},
        projection_dim=16,
    )  # fmt: skip
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(path)
    (path / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(words)}))
    (path / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer.from_pretrained(path).save_pretrained(path)
    return path


VGG_WIDTHS = (4, 6, 8, 10, 12)


def save_vgg(file: Path, network: str = "vgg19") -> Path:
    """Weights of a fixed seed under torchvision's names, of few channels; no classifier."""
    from stepscope.analysis.metrics.style_gram import CONVOLUTIONS

    generator, state, given = torch.Generator().manual_seed(0), {}, 3
    widths, before = iter(VGG_WIDTHS), -3
    for place in CONVOLUTIONS[network]:
        width = next(widths) if place - before == 3 else given
        size = (width, given, 3, 3)
        # He et al. 2015: no layer fades
        state[f"features.{place}.weight"] = (
            torch.randn(size, generator=generator) * (2 / given / 9) ** 0.5
        )
        state[f"features.{place}.bias"] = torch.randn(width, generator=generator) / 10
        given, before = width, place
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, file)
    return file


@pytest.fixture(scope="session")
def vgg(tmp_path_factory) -> Path:
    """A tiny VGG-19 with random weights, as torchvision saves it."""
    return save_vgg(tmp_path_factory.mktemp("vgg") / "vgg19.pth")


def give_image_prompts(path: Path, pictures: Any) -> None:
    """Let a run hold the pictures (sample, image_row, image_column, rgb) that its adapter was given."""
    dims = ("sample", "image_row", "image_column", "rgb")
    document, before = path / "zarr.json", json.loads((path / "zarr.json").read_text())
    chunks = {"image_prompt": {"chunks": (1, *pictures.shape[1:])}}
    xr.Dataset({"image_prompt": (dims, pictures)}).to_zarr(
        path, mode="a", consolidated=True, encoding=chunks, write_empty_chunks=True
    )
    after = json.loads(document.read_text())  # xarray replaces the attributes of the run
    document.write_text(json.dumps(after | {"attributes": before["attributes"]}))
