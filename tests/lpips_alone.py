"""A process in which `lpips` can be used, whichever build torch is of; `tests/test_lpips.py` reads it.

`python -m tests.lpips_alone RUN OTHER FOLDER`: measures RUN by `python -m analysis`, with OTHER as the
run of more steps, and writes FOLDER/said.json. The library's own layers are its authors'; the networks
that they stand on are torchvision's, with weights of a fixed seed where the published ones would lie.

It is a process of its own because torchvision, once it can be imported, changes what transformers and
diffusers do.
"""

import json
import sys
from collections.abc import Callable
from contextlib import redirect_stderr
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch

NEEDED = ("nms", "qnms")
"""Operators that `import torchvision` describes to torch, whether they are there or not."""


def importable() -> torch.library.Library | None:
    """Let torchvision be imported beside any torch: LPIPS needs its networks, which are plain Python.

    Its compiled operators load beside the build of torch that they were compiled for. Beside another,
    declarations stand for them, as long as what is returned is kept.
    """
    sys.path.append(str(Path(sys.prefix, "lpips")))  # where `make setup` puts both
    found = find_spec("torchvision")
    folders = found.submodule_search_locations if found is not None else None
    try:
        for compiled in Path(*folders or ()).glob("_C*.so"):
            torch.ops.load_library(compiled)
    except OSError:
        library = torch.library.Library("torchvision", "DEF")
        for name in NEEDED:
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return library
    return None


OPERATORS = importable()  # before transformers, which imports torchvision where it can

import stepscope.probes.quiet  # noqa: E402, F401  isort: skip

import lpips as authors  # noqa: E402  # pyright: ignore[reportMissingImports]
import numpy as np  # noqa: E402
import torchvision  # noqa: E402  # pyright: ignore[reportMissingImports]
from insightface.utils.face_align import norm_crop  # noqa: E402

from stepscope.analysis.__main__ import main as analysis  # noqa: E402
from stepscope.analysis.measure import preflight  # noqa: E402
from stepscope.analysis.metrics import lpips, style_gram  # noqa: E402
from stepscope.analysis.runs import open_measured  # noqa: E402
from tests.shell import run_command  # noqa: E402

LAYERS = {
    "alex": (1, 4, 7, 9, 11),
    "vgg": (3, 8, 15, 22, 29),
    "squeeze": (1, 4, 7, 9, 10, 11, 12),
}
"""Of torchvision's features, the layers whose outputs Zhang et al. compare: conv1 to conv5 of AlexNet, five
of VGG, and of SqueezeNet the first convolution and what follows each fire module."""


def unreached(*args: object, **words: object) -> None:
    """As torch's download is where there is no network."""
    raise URLError("no network")


def seeded(build: Callable[[], Any]) -> Any:
    """torchvision's model with features of a fixed seed, and no classifier to speak of."""
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        model = build()
    state: dict[str, torch.Tensor] = {}
    for name, value in model.state_dict().items():
        if name.startswith("features."):
            inputs = value[0].numel() if value.ndim > 1 else 100  # He et al. 2015: no layer fades
            state[name] = torch.randn(value.shape, generator=generator) * (2 / inputs) ** 0.5
        else:
            state[name] = torch.zeros(1).expand(value.shape)  # LPIPS does not read it
    model.load_state_dict(state, assign=True)
    return model.eval().requires_grad_(False)


def by_its_definition(network: str, model: Any, first: np.ndarray, second: np.ndarray) -> float:
    """Zhang et al. 2018, equation 1, layer by layer, with the authors' weights from their file."""
    file = Path(*authors.__path__, "weights", "v0.1", f"{network}.pth")
    weights = torch.load(file, map_location="cpu")

    def features(image: np.ndarray) -> list[torch.Tensor]:
        pixels = torch.from_numpy(image / 127.5 - 1).float().permute(2, 0, 1)[None]
        mean = torch.tensor([-0.030, -0.088, -0.188])[:, None, None]  # lpips.ScalingLayer
        deviation = torch.tensor([0.458, 0.448, 0.450])[:, None, None]
        x, found = (pixels - mean) / deviation, []
        for i, layer in enumerate(model.features[: LAYERS[network][-1] + 1]):
            x = layer(x)
            if i in LAYERS[network]:
                found.append((x / x.norm(dim=1, keepdim=True)).nan_to_num())
        return found

    total = 0.0
    for k, (a, b) in enumerate(zip(features(first), features(second), strict=True)):
        total += (weights[f"lin{k}.model.1.weight"] * (a - b) ** 2).sum(1).mean().item()
    return total


def three_ways(network: str, model: Any) -> dict[str, list[float]]:
    """Distances of three images to the first: by the product, by the library, by the definition."""
    images = np.random.default_rng(0).integers(0, 256, (3, 80, 60, 3), dtype=np.uint8)
    library = authors.LPIPS(net=network, verbose=False)
    first = authors.im2tensor(images[0])
    return {
        "ours": lpips.distances(lpips.load(network, "cpu"), images, images[:1]).tolist(),
        "library": [library(authors.im2tensor(image), first).item() for image in images],
        "definition": [by_its_definition(network, model, image, images[0]) for image in images],
    }


def gram_two_ways(network: str) -> dict[str, list[float]]:
    """Gram distances of three images to the first: by the product, and on torchvision's own module."""
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    model = seeded(getattr(torchvision.models, network))
    torch.save(model.state_dict(), file := Path(torch.hub.get_dir(), f"{network}.pth"))
    ours = style_gram.GramDistance(gram=str(file), gram_size=64, device="cpu")
    normal = torchvision.models.get_model_weights(network)["IMAGENET1K_V1"].transforms()
    mean, deviation = (torch.tensor(v)[:, None, None] for v in (normal.mean, normal.std))
    x = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - mean) / deviation
    total, convolutions = torch.zeros(3, dtype=torch.float64), 0
    for layer in model.features:
        x = layer(x)
        convolutions += isinstance(layer, torch.nn.Conv2d)
        if isinstance(layer, torch.nn.MaxPool2d):
            convolutions = 0
        elif isinstance(layer, torch.nn.ReLU) and convolutions == 1:
            f = x.flatten(2).double()
            g, (n, m) = f @ f.mT, f.shape[1:]
            total += ((g - g[:1]) ** 2).sum((1, 2)) / (4 * n**2 * m**2) / 5
    return {"ours": ours.compare(images, images[:1]).tolist(), "torchvision": total.tolist()}


def expected(path: str, model: Any) -> dict[str, list]:
    """A run's `lpips` of reference pairs and `lpips_step`, by the definition; no face is missing."""
    run = open_measured(path)
    points = run["final_keypoints"].values[:, 0]
    faces = [norm_crop(i, p) for i, p in zip(run["image"].values, points, strict=True)]

    def distance(first: np.ndarray, second: np.ndarray) -> float:
        return by_its_definition("alex", model, first, second)

    return {
        "reference": [distance(*pair) for pair in zip(faces, run["face_crop"].values, strict=True)],
        "steps": [
            [distance(x0, last) for x0 in steps]
            for steps, last in zip(run["decoded"].values, run["image"].values, strict=True)
        ],
    }


def answered(run: str, other: str) -> tuple[int, list[str]]:
    """Exit status of `python -m analysis` with both metrics, and its lines on standard error."""
    words = [f"runs=[{run}]", "metrics=[lpips,lpips_step]", f"many_step={other}", "device=cpu"]
    with redirect_stderr(StringIO()) as printed:
        status = run_command(words, analysis)
    return status, printed.getvalue().splitlines()


def main() -> None:
    run, other, folder = sys.argv[1:]
    torch.hub.set_dir(folder)
    torch.hub.download_url_to_file = unreached
    files = {name: lpips.weights(name)[1] for name in lpips.NETWORKS}
    said: dict[str, Any] = {"missing": answered(run, other)}
    files["alex"].write_bytes(b"half a file")
    said["damaged"] = answered(run, other)
    models = {name: seeded(getattr(torchvision.models, of)) for name, of in lpips.NETWORKS.items()}
    for name, model in models.items():
        torch.save(model.state_dict(), files[name])
    preflight(["lpips", "lpips_step"])
    said["measured"] = answered(run, other)
    said["networks"] = {name: three_ways(name, model) for name, model in models.items()}
    said["gram"] = {name: gram_two_ways(name) for name in style_gram.PUBLISHED}
    said["addresses"] = {
        name: torchvision.models.get_model_weights(name)["IMAGENET1K_V1"].url
        for name in style_gram.PUBLISHED
    }
    said["run"] = expected(run, models["alex"])
    Path(folder, "said.json").write_text(json.dumps(said))


if __name__ == "__main__":
    with torch.inference_mode():
        main()
