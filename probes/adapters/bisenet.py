"""BiSeNet, which tells the parts of a face apart (facexlib's `parsing_bisenet.pth`, 19 classes).

Follows facexlib (parsing/bisenet.py and parsing/resnet.py at github.com/xinntao/facexlib; Yu et al. 2018,
arXiv 1808.00897) with the published names of weights, so that it loads strictly; of the three outputs the
first alone is made.
"""

from pickle import UnpicklingError

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from stepscope.probes.places import located
from stepscope.probes.weights import WeightsError

CLASSES = 19


class _Convolved(nn.Module):
    """Convolution, batch norm and ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class _Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        made = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(made + (x if self.downsample is None else self.downsample(x)))


class _ResNet18(nn.Module):
    """Features at an eighth, a sixteenth and a thirty-second of the sides."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        sizes = ((64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2))
        for number, (inputs, outputs, stride) in enumerate(sizes, 1):
            pair = _Residual(inputs, outputs, stride), _Residual(outputs, outputs, 1)
            self.add_module(f"layer{number}", nn.Sequential(*pair))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        eighth = self.get_submodule("layer2")(self.get_submodule("layer1")(x))
        sixteenth = self.get_submodule("layer3")(eighth)
        return eighth, sixteenth, self.get_submodule("layer4")(sixteenth)


class _Refined(nn.Module):
    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.conv = _Convolved(inputs, 128)
        self.conv_atten = nn.Conv2d(128, 128, 1, bias=False)
        self.bn_atten = nn.BatchNorm2d(128)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x * self.bn_atten(self.conv_atten(_mean(x))).sigmoid()


class _Context(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.resnet = _ResNet18()
        self.arm16, self.arm32 = _Refined(256), _Refined(512)
        self.conv_head32, self.conv_head16 = _Convolved(128, 128), _Convolved(128, 128)
        self.conv_avg = _Convolved(512, 128, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        eighth, sixteenth, last = self.resnet(x)
        x = self.arm32(last) + self.conv_avg(_mean(last))
        x = self.conv_head32(F.interpolate(x, sixteenth.shape[2:]))
        x = self.arm16(sixteenth) + x
        return eighth, self.conv_head16(F.interpolate(x, eighth.shape[2:]))


class _Fused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convblk = _Convolved(256, 256, 1)
        self.conv1 = nn.Conv2d(256, 64, 1, bias=False)
        self.conv2 = nn.Conv2d(64, 256, 1, bias=False)

    def forward(self, spatial: Tensor, context: Tensor) -> Tensor:
        x = self.convblk(torch.cat((spatial, context), dim=1))
        return x + x * self.conv2(F.relu(self.conv1(_mean(x)))).sigmoid()


class _Output(nn.Module):
    def __init__(self, inputs: int, inner: int) -> None:
        super().__init__()
        self.conv = _Convolved(inputs, inner)
        self.conv_out = nn.Conv2d(inner, CLASSES, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_out(self.conv(x))


class BiSeNet(nn.Module):
    """RGB images, normalised with ImageNet's mean and deviation, to the logits of 19 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.cp, self.ffm = _Context(), _Fused()
        self.conv_out = _Output(256, 256)
        self.conv_out16, self.conv_out32 = _Output(128, 64), _Output(128, 64)  # of the training

    @torch.no_grad()
    def forward(self, image: Float[Tensor, "n 3 row column"]) -> Float[Tensor, "n 19 row column"]:
        logits = self.conv_out(self.ffm(*self.cp(image)))
        return F.interpolate(logits, image.shape[2:], mode="bilinear", align_corners=True)


def _mean(x: Tensor) -> Tensor:
    return x.mean((2, 3), keepdim=True)


def load_bisenet(path: str) -> BiSeNet:
    """The published file. Raises WeightsError if it is missing or not one of BiSeNet."""
    file = located(path)
    if not file.is_file():
        raise WeightsError(f"adapter.parsing: no file {path!r}")
    network = BiSeNet()
    try:
        network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    except (RuntimeError, TypeError, EOFError, UnpicklingError) as error:
        raise WeightsError(f"adapter.parsing={path!r} is not a BiSeNet state dict") from error
    return network.eval().requires_grad_(False)
