"""What a pipeline call returned: images, or latents."""

from typing import Any

import numpy as np
import torch


def first_output(output: Any) -> Any:
    """The images or latents of a pipeline's output: its first field, or the first of a tuple."""
    if isinstance(output, tuple):
        return output[0]
    return getattr(output, "images", None)


def numbers_of(output: Any) -> np.ndarray:
    """The numbers of what a call returned: a pipeline's output, its images or latents, or an array."""
    given = output if isinstance(output, list | np.ndarray | torch.Tensor) else first_output(output)
    if isinstance(given, torch.Tensor):
        given = given.detach().float().cpu().numpy()
    if given is None:
        raise TypeError(f"{type(output).__name__} is no image: return what the pipeline returned")
    return np.asarray(given)


def images_of(output: Any, output_type: str) -> np.ndarray | None:
    """(sample, row, column, rgb) of 0 to 255; None where latents were returned.

    Values are rounded as diffusers does (VaeImageProcessor.numpy_to_pil); what is no number is 0.
    """
    given = first_output(output)
    if given is None or output_type == "latent":
        return None
    if isinstance(given, list):
        return np.stack([np.asarray(image.convert("RGB")) for image in given])
    if isinstance(given, torch.Tensor):
        given = given.detach().float().cpu().permute(0, 2, 3, 1).numpy()
    return (np.clip(np.nan_to_num(given, nan=0.0), 0, 1) * 255).round().astype(np.uint8)


def drawn_of(output: Any, decoded: torch.Tensor | None, samples: int) -> np.ndarray:
    """Whether the numbers that each sample's image was made of are finite, (sample,) bool.

    decoded: the VAE's output, None if there was none. A PIL image does not tell: it has 0 there.
    """
    given = first_output(output)
    finite = np.ones(samples, bool)
    for values in (given, decoded):
        if not isinstance(values, np.ndarray | torch.Tensor):
            continue
        every = torch.isfinite(torch.as_tensor(values)).flatten(1).all(1).cpu().numpy()
        # images that were decoded one by one: which sample's these are is not known
        finite &= every if len(every) == samples else every.all()
    return finite


def latents_of(output: Any, output_type: str) -> torch.Tensor | None:
    """The latents that were returned; None where images were."""
    given = first_output(output)
    return given if output_type == "latent" and isinstance(given, torch.Tensor) else None
