"""The clean estimate x0 of every step as an image, through the backbone's VAE alone."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import diffusers
import numpy as np
import torch
import xarray as xr
from diffusers import AutoencoderKL

from stepscope.analysis.metrics.metric import Metric, Quantity, digests
from stepscope.analysis.metrics.vaes import decoded, kind_of, side
from stepscope.analysis.valid import images_there, not_finite
from stepscope.hooks.errors import StepscopeError
from stepscope.hooks.vocabulary import UPRIGHT
from stepscope.probes.backbones import pick_device
from stepscope.probes.places import located
from stepscope.probes.weights import WeightsError, explained, folder

PIXELS = {"cpu": 2**16, "cuda": 2**21}
"""Decoded at once, by device: on a CPU 4 images of 128 x 128; 8 took 15 % longer, for each image."""


VAE = ["vae/config.json", "vae/diffusion_pytorch_model.safetensors"]
"""Of a hub repository, what the pipeline downloaded too: no half precision, nothing of other libraries."""


@dataclass(frozen=True)
class Decode(Metric):
    """Images of x0 at every step, and of the final latents where the run kept no image.

    vae: folder of a VAE or of a model that has one, None for the run's own. device: as in `probes`.
    """

    vae: str | None = None
    device: str = "auto"
    name: ClassVar[str] = "decode"
    reads: ClassVar[tuple[str, ...]] = ("x0", "final_latents", "image")
    revision: ClassVar[int] = 2

    def preflight(self) -> None:
        if self.vae is not None:
            vae_folder(self.vae, {})

    def quantities(self, run: xr.Dataset) -> Mapping[str, Quantity]:
        picture = ("row", "column", "rgb")
        told = "decoded by the backbone's VAE, 0 to 255"
        found = {
            "decoded": Quantity(
                ("step", *picture),
                "uint8",
                "1",
                f"clean estimate x0 at the step, {told}; black where the step did not run "
                "or is not finite (coordinate not_finite)",
            )
        }
        if "image" not in run or run["image"].attrs.get("metric") == self.name:
            found["image"] = Quantity(picture, "uint8", "1", f"final latents, {told}")
        return found

    def coordinates(self, run: xr.Dataset) -> dict[str, tuple[str, Any]]:
        found: dict[str, tuple[str, Any]] = {"rgb": ("rgb", ["red", "green", "blue"])}
        if "image" in self.quantities(run):
            factor = side(run.attrs["vae"])
            for axis, latent in (("row", "y"), ("column", "x")):
                place = np.arange(run.sizes[latent] * factor)
                found[axis] = (axis, -place if axis in UPRIGHT else place)
        return found

    def settings(self, run: xr.Dataset) -> dict[str, Any]:
        """Raises WeightsError where the VAE is not the one whose hash the run recorded."""
        path = vae_folder(self.vae, run.attrs)
        found = digests(path)
        recorded = {
            name.removeprefix("backbone/vae/"): value
            for name, value in run.attrs.get("weights", {}).items()
            if name.startswith("backbone/vae/")
        }
        if self.vae is None and recorded and recorded != found:
            raise WeightsError(f"vae: {path} is not the one that made the run, its hash differs")
        return {"vae": found, "dtype": vae_dtype(run.attrs)}

    def load(self, run: xr.Dataset) -> None:
        self.autoencoder(run.attrs)

    def autoencoder(self, about: Mapping[str, Any]) -> Any:
        """The VAE for a run with these attributes, loaded once."""
        place = str(vae_folder(self.vae, about))
        return load_vae(place, vae_dtype(about), pick_device(self.device))

    def __call__(self, samples: xr.Dataset) -> dict[str, np.ndarray]:
        vae = self.autoencoder(samples.attrs)
        x0, final = samples["x0"].values, samples["final_latents"].values
        bad, makes = not_finite(samples) != "", "image" in self.quantities(samples)
        last = pictures(vae, final, bad) if makes else samples["image"].values
        shown = last * images_there(samples)[:, None, None, None]
        values = [one(vae, *each) for each in zip(x0, final, shown, bad.tolist(), strict=True)]
        return {"decoded": np.stack(values)} | ({"image": last} if makes else {})


def one(vae: Any, x0: np.ndarray, final: np.ndarray, image: np.ndarray, bad: bool) -> np.ndarray:
    """One sample's images (step, row, column, rgb); steps whose x0 is the final latents are its image.

    bad: as in `pictures`, of all steps.
    """
    same = np.array([np.array_equal(z, final) for z in x0])
    made = np.empty((len(x0), *image.shape), np.uint8)
    made[same] = image
    if not same.all():
        rest = x0[~same]
        made[~same] = pictures(vae, rest, np.full(len(rest), bad))
    return made


@torch.inference_mode()
def pictures(vae: Any, latents: np.ndarray, bad: np.ndarray | None = None) -> np.ndarray:
    """Images (n, row, column, rgb) uint8 of latents (n, channel, y, x) in the scheduler's scale.

    The VAE's output goes from [-1, 1] to [0, 1] as in diffusers' VaeImageProcessor. Latents that are
    not there (NaN: a step that did not run) are black. bad: (n,) whether the run says of a sample that
    something of it is not finite: what the VAE makes of it is black where that is not finite either.
    Raises StepscopeError where the VAE makes what is not finite of other latents that are.
    """
    weight = next(vae.parameters())
    scale = side(vae.config)
    most = PIXELS.get(weight.device.type, PIXELS["cpu"])
    batch = max(1, most // (latents.shape[-1] * latents.shape[-2] * scale**2))
    there = np.isfinite(latents).all((1, 2, 3))
    made = np.zeros(
        (len(latents), latents.shape[-2] * scale, latents.shape[-1] * scale, 3), np.uint8
    )
    for start in range(0, int(there.sum()), batch):
        rows = np.flatnonzero(there)[start : start + batch]
        images = decoded(vae, torch.from_numpy(latents[rows]).to(weight))
        finite = images.isfinite().flatten(1).all(1).cpu().numpy()
        if not (finite if bad is None else finite | bad[rows]).all():
            raise StepscopeError(
                f"the VAE overflows in the {str(weight.dtype).removeprefix('torch.')} that the run used: "
                "name one that does not, vae=FOLDER"
            )
        pixels = (images * 0.5 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).float()
        made[rows[finite]] = (pixels[finite] * 255).round().to(torch.uint8).cpu().numpy()
    return made


def vae_folder(given: str | None, about: Mapping[str, Any]) -> Path:
    """Where the run's VAE is. Raises StepscopeError for a run that names no backbone."""
    if given is not None:
        path = located(given)
        for place in (path / "vae", path):
            if (place / "config.json").is_file():
                return place
        raise WeightsError(f"vae: no folder with a config.json at {given!r}")
    backbone = about.get("configuration", {}).get("backbone")
    if backbone is None and about.get("loaded_from"):
        backbone = {"path": about["loaded_from"], "name": about["loaded_from"]}
    if backbone is None:
        raise StepscopeError(
            "the run does not say which model made it: name its VAE or its model, vae=FOLDER"
        )
    path = folder(backbone["path"], f"backbone {backbone['name']}", VAE) / "vae"
    if not path.is_dir():
        raise WeightsError(
            f"backbone {backbone['name']}: {str(path)!r} is not a folder; name vae=FOLDER"
        )
    return path


def vae_dtype(about: Mapping[str, Any]) -> str:
    """What the run's pipeline decoded in, so that the images are those that it would have made.

    The VAE's own; where a run does not say it, its backbone's, or its denoiser's unless that is a
    storage format (float8, packed integers). Pipelines of the XL family decode in float32 where the
    VAE is in float16 and asks for it (`force_upcast`); the others, FLUX's too, do not look.
    """
    backbone = about.get("configuration", {}).get("backbone", {})
    name = about.get("vae_dtype") or backbone.get("dtype") or about["dtype"]
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point or dtype.itemsize < 2:
        return "float32"
    asks = about.get("vae", {}).get("force_upcast", True)  # AutoencoderKL's default
    return "float32" if name == "float16" and asks and upcasts(about.get("pipeline", "")) else name


def upcasts(pipeline: str) -> bool:
    """Whether a pipeline of diffusers, by its class's name, looks at `force_upcast`; any other does."""
    kind = getattr(diffusers, pipeline, None)
    return kind is None or hasattr(kind, "upcast_vae")


@cache
def load_vae(path: str, dtype: str, device: str) -> Any:
    """The autoencoder of a folder."""
    with explained(path, "vae"):
        told = json.loads((Path(path) / "config.json").read_text())
        kind: Any = kind_of(told.get("_class_name", AutoencoderKL.__name__))
        vae: Any = kind.from_pretrained(path, dtype=getattr(torch, dtype))
    vae = vae.eval().requires_grad_(False).to(device)
    flat = all(weight.ndim < 5 for weight in vae.parameters())  # a VAE of videos is not
    return vae.to(memory_format=torch.channels_last) if flat else vae
