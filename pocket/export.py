"""Write the detector and both recognisers as ONNX, in the forms that insightface reads; and read-outs.

    python -m pocket.export [--checkpoints FOLDER] [--models FOLDER]

Weights are stored in half precision and cast up where they are used, so a file is half as large and
computes in float32.
"""

import json
import warnings
from pathlib import Path

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from stepscope.pocket.grammar import PHRASES
from stepscope.pocket.networks import AttributeReadout, Detector, RecogniserA, RecogniserB
from stepscope.pocket.process import options
from stepscope.pocket.shipped import ATTRIBUTES_READOUT, CONDITIONER, DETECTOR, JUDGE
from stepscope.pocket.weights import load_half

# Smaller tensors stay in float32: nothing is gained on them.
HALVE_FROM = 256
OPSET = 17


class ScrfdOutputs(nn.Module):
    """The detector with SCRFD's nine outputs: scores, boxes, keypoints of strides 8, 16, 32."""

    def __init__(self, detector: Detector):
        super().__init__()
        self.detector = detector

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        levels = self.detector(x)
        scores = [level[..., :1].sigmoid() for level in levels]
        boxes = [level[..., 1:5] for level in levels]
        return (*scores, *boxes, *(level[..., 5:] for level in levels))


def halve(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store the large weights as float16 behind Cast nodes."""
    graph = model.graph
    casts = []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        name = tensor.name
        if tensor.data_type != TensorProto.FLOAT or values.size < HALVE_FROM:
            continue
        stored = f"{name}.half"
        tensor.CopyFrom(numpy_helper.from_array(values.astype("float16"), stored))
        casts.append(
            helper.make_node("Cast", [stored], [name], name=f"cast.{name}", to=TensorProto.FLOAT)
        )
    # insightface reads a recogniser's normalisation off the names of its first eight nodes.
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return model


def write(
    module: nn.Module, shape: tuple[int, ...], path: Path, outputs: list[str], axes: dict
) -> None:
    """Trace a module on an empty picture and write it, its weights under their own names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        # The exporter that keeps a module's own names is the older one.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.cpu().eval(),
            (torch.zeros(shape),),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            # Neither folds batch norms into convolutions, nor constants into weights.
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
            input_names=["data"],
            output_names=outputs,
            dynamic_axes=axes,
        )
    onnx.save(halve(onnx.load(str(path))), str(path))


def export(checkpoints: Path, models: Path) -> None:
    """Write those of the three files whose safetensors lie among the checkpoints."""
    batch = {"data": {0: "n"}, "embedding": {0: "n"}}
    trained = {path.stem for path in checkpoints.glob("*.safetensors")}
    if not trained & {"recogniser_a", "recogniser_b", "detector"}:
        raise FileNotFoundError(f"{checkpoints} has no recogniser and no detector to export")
    for name, net, path in (
        ("recogniser_a", RecogniserA(), CONDITIONER),
        ("recogniser_b", RecogniserB(), JUDGE),
    ):
        if name in trained:
            load_half(net, checkpoints / f"{name}.safetensors")
            write(net, (1, 3, 112, 112), models / path, ["embedding"], batch)
    if "detector" not in trained:
        return
    detector = load_half(Detector(), checkpoints / "detector.safetensors")
    names = [f"{kind}_{stride}" for kind in ("score", "bbox", "kps") for stride in (8, 16, 32)]
    axes = {"data": {0: "n", 2: "height", 3: "width"}, **{n: {0: "n", 1: "anchors"} for n in names}}
    write(ScrfdOutputs(detector), (1, 3, 160, 160), models / DETECTOR, names, axes)


def export_attributes(readout: AttributeReadout, models: Path) -> None:
    """Write the attribute read-out: an output of logits for each attribute, and the prompts' phrases.

    Metadata `phrases`: JSON, for each output, how a prompt names each of its values, in order.
    """
    axes = {name: {0: "n"} for name in ("data", *PHRASES)}
    path = models / ATTRIBUTES_READOUT
    write(readout, (1, 3, 128, 128), path, [*PHRASES], axes)
    model = onnx.load(str(path))
    helper.set_model_props(model, {"phrases": json.dumps(PHRASES)})
    onnx.save(model, str(path))


if __name__ == "__main__":
    said = options(__doc__)
    export(said.checkpoints, said.models)
