"""The shipped networks, read back into torch: the ONNX files are the only copy of their weights."""

from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from stepscope.pocket.networks import (
    AttributeReadout,
    Detector,
    RecogniserA,
    RecogniserB,
    WholenessReadout,
)
from stepscope.pocket.process import MODELS, device
from stepscope.pocket.weights import load_half

CONDITIONER = Path("infinite-you/identity.onnx")
JUDGE = Path("insightface/models/pocket/recognition.onnx")
DETECTOR = Path("insightface/models/pocket/det.onnx")
ATTRIBUTES_READOUT = Path("readout/attributes.onnx")
WHOLENESS_READOUT = Path("readout/wholeness.safetensors")

# The detector is exported from within a module that gives it SCRFD's outputs.
WRAPPER = "detector."

M = TypeVar("M", bound=nn.Module)


def from_onnx(module: M, path: Path) -> M:
    """Fill a module from an ONNX file that the exporter wrote of it; frozen, on this device.

    The exporter names weights as the module does. What it stores once for two equal weights, or
    in half precision, reaches the name through Identity and Cast nodes, which are followed.
    """
    graph = onnx.load(str(path)).graph
    known = {t.name: np.array(numpy_helper.to_array(t)) for t in graph.initializer}
    for node in graph.node:
        if node.op_type in ("Identity", "Cast") and node.input[0] in known:
            known[node.output[0]] = known[node.input[0]]
    named = {k.removeprefix(WRAPPER): torch.from_numpy(v) for k, v in known.items()}
    state = {k: v for k, v in named.items() if k in module.state_dict()}
    missing, _ = module.load_state_dict(
        {k: v.float() if v.is_floating_point() else v for k, v in state.items()}, strict=False
    )
    lost = [k for k in missing if not k.endswith("num_batches_tracked")]
    if lost:
        raise ValueError(f"{path} lacks {lost[:3]} of {type(module).__name__}")
    return module.to(device()).eval().requires_grad_(False)


def load_conditioner(models: Path = MODELS) -> RecogniserA:
    """The encoder that conditions the adapter."""
    return from_onnx(RecogniserA(), models / CONDITIONER)


def load_judge(models: Path = MODELS) -> RecogniserB:
    """The recogniser that judges, and is never trained against."""
    return from_onnx(RecogniserB(), models / JUDGE)


def load_detector(models: Path = MODELS) -> Detector:
    return from_onnx(Detector(), models / DETECTOR)


def load_attributes(models: Path = MODELS) -> AttributeReadout:
    return from_onnx(AttributeReadout(), models / ATTRIBUTES_READOUT)


def load_wholeness(models: Path = MODELS) -> WholenessReadout:
    return load_half(WholenessReadout(), models / WHOLENESS_READOUT)
