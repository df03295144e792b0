"""Measured runs with known answers, as `analysis` leaves them, for whoever draws or tabulates."""

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from stepscope.analysis.evidence import Evidence
from stepscope.analysis.margins import Margins
from tests.edited import causal_evidence, projections_of
from tests.organisms import known_organisms

LEVELS = {
    "portrait photo of a person": "simple",
    "portrait photo of a person at the beach": "scene",
    "poster pencil sketch of a person in an office": "conflicting",
}
PROMPTS = tuple(LEVELS)
FACES = tuple(f"{n:02d}_0" for n in range(6))
SIZE, BATCH = 16, 8
MARGINS = Margins(
    retention=0.9,
    least_lift=0.1,
    transfer_margin=0.05,
    distance_margin=0.05,
    speed=3.0,
    lost_face=0.0,
    window_from=4,
    window_steps=8,
    window_decided_by=("committed",),
    plateau_rise=0.1,
)
STREAMS = ("image", "text", "identity")
PARTS = ("face", "text", "adapter", "denoiser", "vae", "total")


def measured_run(
    backbone: str = "pocket_dev",
    steps: int = 28,
    *,
    scale: float = 1.0,
    guidance: float | None = None,
    true_cfg: float = 1.0,
    faces: Sequence[str] = FACES,
    prompts: Sequence[str] = PROMPTS,
    seeds: Sequence[int] = (0, 1),
    recognisers: Sequence[str] = ("pocket", "identity"),
    missing: float = 0.1,
    lpips: bool = True,
    window: tuple[int, int] | None = None,
    loses: float = 0.0,
) -> xr.Dataset:
    """A run in which identity rises within 20 % of it to 0.6 times the scale, and sharpness later.

    window: of the adapter, in steps; loses: what the final similarity is lower by.
    """
    told = (backbone, steps, scale, guidance, true_cfg)
    rng = np.random.default_rng(zlib.crc32(repr(told).encode()))
    cells = [(f, p, s) for f in faces for p in prompts for s in seeds]
    n, blocks, pairs = len(cells), 12, ("reference", "many_step")
    call = np.arange(n) // BATCH
    seconds = rng.uniform(0.9, 1.1, (call[-1] + 1, len(PARTS)))[call] * (steps + 1)
    if window is not None:  # steps without the adapter do not run its network
        off = 1 - (window[1] - window[0]) / steps
        seconds[:, PARTS.index("total")] -= off * seconds[:, PARTS.index("adapter")]
    sigma = 1 - np.arange(steps) / steps
    level = 0.6 * scale + rng.normal(0, 0.05, (n, 1))
    similarity = level * (1 - np.exp(-(1 - sigma + 1 / steps) / 0.1)) + rng.normal(
        0, 0.02, (n, steps)
    )
    similarity = np.stack([similarity + 0.1 * k for k in range(len(recognisers))], -1)
    lost = rng.random((n, steps, len(recognisers), 1)) < missing * np.array([2, 1])
    similarity = np.where(lost, np.nan, similarity[..., None])
    sharp = (1 - np.exp(-(1 - sigma) / 0.3))[None, :, None, None] + rng.normal(
        0, 0.02, (n, steps, 2, 3)
    )
    names = {
        "similarity": (("sample", "step", "recogniser", "alignment"), similarity),
        "found": (("sample", "step", "recogniser"), np.where(lost[..., 0], 2, 1).astype(np.int8)),
        "final_similarity": (("sample", "recogniser"), similarity[:, -1, :, 0] - loses),
        "final_found": (("sample", "recogniser"), np.where(lost[:, -1, :, 0], 2, 1).astype(np.int8)),
        "sharpness": (("sample", "step", "region", "measure"), sharp),
        "latency_seconds": (("sample", "part"), seconds),
        "fixed_cost_steps": (("sample",), rng.normal(0.9, 0.01, n)),
        **readings(rng, similarity[:, :, :, 1], sharp, steps),
        "decoded": (("sample", "step", "row", "column", "rgb"), _pictures(rng, n, steps)),
        "image": (("sample", "row", "column", "rgb"), _pictures(rng, n, 1)[:, 0]),
        "face_crop": (("sample", "crop_row", "crop_column", "rgb"), _pictures(rng, n, 1)[:, 0]),
        "attention_norm": (
            ("sample", "step", "branch", "block", "stream"),
            rng.uniform(1, 2, (n, steps, 1, blocks, 3)) * [1, 0.5, np.nan],
        ),
        "residual_norm": (
            ("sample", "step", "branch", "block", "stream"),
            rng.uniform(30, 50, (n, steps, 1, blocks, 3)) * [1, 1, np.nan],
        ),
        "contribution": (
            ("sample", "step", "branch", "injection"),
            scale * rng.uniform(0, 0.3, (n, steps, 1, blocks)),
        ),
        "step_seconds": (("sample", "step"), rng.uniform(0.9, 1.1, (call[-1] + 1, steps))[call]),
    }  # fmt: skip
    if lpips:
        for metric in ("lpips", "dinov2"):
            names[metric] = (("sample", "pair"), rng.uniform(0.3, 0.5, (n, 2)))
    face, prompt, seed = zip(*cells, strict=True)
    return xr.Dataset(
        names,
        coords={
            "face": ("sample", list(face)),
            "prompt": ("sample", list(prompt)),
            "seed": ("sample", list(seed)),
            "batch_size": ("sample", np.bincount(call)[call]),
            "sample": np.arange(n),
            "step": np.arange(steps),
            "sigma": ("step", sigma),
            "log_snr": ("step", flow_log_snr(sigma)),
            "branch": ["positive"],
            "block": names_of_blocks(),
            "stream": list(STREAMS),
            "injection": [f"{name}.image.controlnet" for name in names_of_blocks()],
            "injection_adapter": ("injection", ["controlnet"] * blocks),
            "injection_block": ("injection", names_of_blocks()),
            "injection_stream": ("injection", ["image"] * blocks),
            "recogniser": list(recognisers),
            "conditioning": ("recogniser", [name == "identity" for name in recognisers]),
            "alignment": ["detected", "fixed"],
            "region": ["image", "face"],
            "measure": ["laplacian", "tenengrad", "high_frequency"],
            "part": list(PARTS),
            "pair": list(pairs),
            "toward": ["own", "other"],
            "off_from": off_from(steps),
            "off_sigma": ("off_from", np.append(sigma, 0)[off_from(steps)]),
        },
        attrs=attributes(backbone, steps, scale, guidance, true_cfg, seeds, window),
    )


def flow_log_snr(sigma: np.ndarray) -> np.ndarray:
    """Minus infinity of noise alone, as `open_run` has it."""
    with np.errstate(divide="ignore"):
        return 2 * (np.log(1 - sigma) - np.log(sigma))


def pictured_run(
    backbone: str = "sdxl",
    steps: int = 20,
    *,
    adapter: str = "style",
    gram: bool = True,
    missing: float = 0.1,
    faces: Sequence[str] = FACES,
    early: float = 4.0,
) -> xr.Dataset:
    """A run of an IP-Adapter that was given pictures, in which likeness rises and contributions fall.

    early: what share of a run, inverse, likeness rises in. Contributions at the places are in proportion to
    `falling`, so that their root mean square is too.
    """
    rng = np.random.default_rng(zlib.crc32(repr((backbone, steps, adapter)).encode()))
    cells = [(f, p, s) for f in faces for p in PROMPTS[:2] for s in (0, 1)]
    n, way = len(cells), 1 - np.exp(-early * np.arange(1, steps + 1) / steps)
    names: dict[str, Any] = {}
    for k, name in enumerate(("reference_clip", "reference_dinov2")):
        values = (
            0.5
            - 0.2 * k
            + 0.3 * way
            + rng.normal(0, 0.03, (n, 1))
            + rng.normal(0, 0.01, (n, steps))
        )
        lost = rng.random(values.shape) < missing
        names[name] = (("sample",), values[:, -1])
        names[f"{name}_step"] = (("sample", "step"), np.where(lost, np.nan, values))
    if gram:
        values = 100 * np.exp(-4 * way) * rng.uniform(0.9, 1.1, (n, 1))
        names["style_gram"] = (("sample",), values[:, -1])
        names["style_gram_step"] = (("sample", "step"), values)
    places = np.array([0.1, 0.2, 0.3])
    sizes = falling(steps) * rng.uniform(0.9, 1.1, (n, 1))
    names["contribution"] = (
        ("sample", "step", "branch", "injection"), sizes[:, :, None, None] * places
    )  # fmt: skip
    sigma = np.geomspace(14.6, 0.03, steps)  # variance exploding
    face, prompt, seed = zip(*cells, strict=True)
    blocks = [f"up.00.00.{i:02d}" for i in range(len(places))]
    return xr.Dataset(
        names,
        coords={
            "face": ("sample", list(face)),
            "prompt": ("sample", list(prompt)),
            "seed": ("sample", list(seed)),
            "sample": np.arange(n),
            "step": np.arange(steps),
            "sigma": ("step", sigma),
            "log_snr": ("step", -2 * np.log(sigma)),
            "branch": ["positive"],
            "injection": [f"{block}.text.ip_adapter:0" for block in blocks],
            "injection_adapter": ("injection", ["ip_adapter:0"] * len(blocks)),
            "injection_block": ("injection", blocks),
            "injection_stream": ("injection", ["text"] * len(blocks)),
        },
        attrs={
            "configuration": {
                "backbone": {"name": backbone, "path": f"models/{backbone}"},
                "adapter": {"name": adapter, "scale": 1.0},
                "steps": steps,
                "seeds": [0, 1],
            },
            "backbone": backbone,
            "adapter": adapter,
        },
    )


def falling(steps: int) -> np.ndarray:
    """A contribution that is largest at the fourth part of a run."""
    place = np.arange(steps) / steps
    return np.exp(-(((place - 0.25) / 0.2) ** 2))


def names_of_blocks() -> list[str]:
    return [f"double.{i:02d}" for i in range(4)] + [f"single.{i:02d}" for i in range(8)]


def off_from(steps: int) -> list[int]:
    """Steps from which the adapter was off; the last is the run itself."""
    return [*range(0, steps, max(1, steps // 7)), steps]


def readings(
    rng: np.random.Generator, predicted: np.ndarray, sharp: np.ndarray, steps: int
) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    """What is carried and committed rises later than what is predicted (sample, step, recogniser).

    The blur null is the last step's identity from the first step on; chance is 0, the ceiling 0.9.
    """
    n, _, recognisers = predicted.shape
    last = np.nan_to_num(predicted[:, -1:], nan=0.6)

    def rising(at: np.ndarray, late: float) -> np.ndarray:
        way = 1 - np.exp(-at / (late * steps))
        return last * (way / way[-1])[:, None] + rng.normal(0, 0.01, (n, len(at), recognisers))

    carried = rising(np.arange(steps) + 0.5, 0.3)
    committed = rising(np.array(off_from(steps)), 0.25)
    off = np.array(off_from(steps))
    along = ("sample", "step", "recogniser")
    return {
        "carried_similarity": ((*along, "alignment"), np.stack([carried] * 2, -1)),
        "swapped_similarity": (
            (*along, "alignment", "toward"),
            np.stack([np.stack([carried / 2, last - carried / 2], -1)] * 2, -2),
        ),
        "committed_similarity": (("sample", "off_from", "recogniser"), committed),
        "decoded_carried": (("sample", "step", "row", "column", "rgb"), _pictures(rng, n, steps)),
        "decoded_committed": (
            ("sample", "off_from", "row", "column", "rgb"),
            _pictures(rng, n, len(off)),
        ),
        "null_similarity": (along, np.repeat(last, steps, 1)),
        "null_sharpness": (("sample", "step", "region", "measure"), sharp),
        "contrast": (("sample", "step", "region"), 0.1 + 0.05 * sharp[..., 0]),
        "null_contrast": (("sample", "step", "region"), 0.12 + 0.03 * sharp[..., 0]),
        "chance": (("sample", "recogniser"), rng.normal(0, 0.01, (n, recognisers))),
        "ceiling": (("sample", "recogniser"), rng.normal(0.9, 0.01, (n, recognisers))),
    }


def evidence(**more: Any) -> Evidence:
    """Every experiment, on `more` of `measured_run`."""
    dev: dict[str, Any] = {"guidance": 3.5} | more
    schnell = more
    pair = [measured_run(**dev), measured_run("pocket_schnell", 4, **schnell)]
    runs = {
        "main": pair,
        "trajectory": pair,
        "prompt_complexity": pair,
        "step_budget": [measured_run(steps=n, **dev) for n in (1, 2, 4, 8, 14, 28)]
        + [measured_run("pocket_schnell", n, **schnell) for n in (1, 2, 4, 8)],
        "guidance": [measured_run(**dict(dev, guidance=g)) for g in (1.0, 3.5)]
        + [measured_run("pocket_schnell", 4, true_cfg=c, **more) for c in (1.0, 2.0)],
    }
    for experiment, scales in {
        "adapter_scale": (0.0, 0.25, 0.5, 1.0, 1.5),
        "weak_adapter": (0.0, 0.25, 1.0),
    }.items():
        runs[experiment] = [measured_run(scale=a, **dev) for a in scales]
        runs[experiment] += [measured_run("pocket_schnell", 4, scale=a, **schnell) for a in scales]
    for one in (dev, schnell | {"backbone": "pocket_schnell", "steps": 4}):
        steps = one.get("steps", 28)
        runs.setdefault("adapter_window", []).extend(
            measured_run(**one, window=(0, end), loses=0.02 * (steps - end) / steps)
            for end in (steps // 4, steps // 2, steps)
        )
    few = {name: more[name] for name in ("faces", "missing") if name in more}
    runs["style_adapter"] = [pictured_run(steps=n, **few) for n in (5, 10, 20)]
    runs["object_adapter"] = [
        pictured_run("sd15", n, adapter="object", gram=False, **few) for n in (10, 30)
    ]
    return Evidence(
        runs,
        baseline="pocket_dev",
        swapped="pocket_schnell",
        levels=LEVELS,
        resamples=99,
        margins=MARGINS,
        causal=causal_evidence(more.get("faces", FACES)),
        planted=known_organisms(30),
        projections={
            "pocket_dev": projections_of(more.get("faces", FACES), (0, 7, 14, 21)),
            "pocket_schnell": projections_of(more.get("faces", FACES), range(4)),
        },
    )


def _pictures(rng: np.random.Generator, samples: int, steps: int) -> np.ndarray:
    return rng.integers(1, 255, (samples, steps, SIZE, SIZE, 3), dtype=np.uint8)


def attributes(
    backbone: str,
    steps: int,
    scale: float,
    guidance: float | None,
    true_cfg: float,
    seeds: Sequence[int],
    window: tuple[int, int] | None = None,
) -> dict[str, Any]:
    return {
        "configuration": {
            "backbone": {"name": backbone, "path": f"models/{backbone}", "dtype": "float32"},
            "adapter": {"name": "pocket", "path": "models/infinite-you", "scale": scale}
            | ({"window": list(window), "window_unit": "step"} if window else {}),
            "steps": steps,
            "guidance": guidance,
            "true_cfg": true_cfg,
            "seeds": list(seeds),
            "height": SIZE,
            "width": SIZE,
        },
        "backbone": backbone,
        "adapter": "pocket",
        "device": "cpu (x86_64)",
        "versions": {"torch": "2.13.0", "diffusers": "0.42.1"},
        "weights": {
            "adapter/InfuseNetModel/diffusion_pytorch_model.safetensors": "ab" * 32,
            "backbone/transformer/diffusion_pytorch_model.safetensors": backbone[-4:] * 16,
        },
        "created": "2026-01-01T00:00:00+00:00",
    }
