"""IR-SE50, the recogniser that InfuseNet was trained with (`recognition_arcface_ir_se50.pth`).

Layer names and order are those of the published state dict (facexlib, recognition/arcface_arch.py,
after Deng et al. 2019, "ArcFace"; squeeze and excitation after Hu et al. 2018), so that it loads
strictly. facexlib itself hard-codes CUDA.
"""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class _SqueezeExcitation(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // 16, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // 16, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.adaptive_avg_pool2d(x, 1)
        return x * self.fc2(F.relu(self.fc1(pooled))).sigmoid()


class _Bottleneck(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        if inputs == outputs:
            self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        else:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            _SqueezeExcitation(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.res_layer(x) + self.shortcut_layer(x)


class IRSE50(nn.Module):
    """112 x 112 BGR crops in [-1, 1] to unit-norm embeddings of 512 numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64)
        )
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(512),
            nn.Dropout(0.6),
            nn.Flatten(),
            nn.Linear(512 * 7 * 7, 512),
            nn.BatchNorm1d(512),
        )
        blocks: list[nn.Module] = []
        inputs = 64
        for outputs, units in ((64, 3), (128, 4), (256, 14), (512, 3)):
            blocks += [
                _Bottleneck(inputs if unit == 0 else outputs, outputs, 2 if unit == 0 else 1)
                for unit in range(units)
            ]
            inputs = outputs
        self.body = nn.Sequential(*blocks)

    def forward(self, crop: Float[Tensor, "face 3 112 112"]) -> Float[Tensor, "face 512"]:
        return F.normalize(self.output_layer(self.body(self.input_layer(crop))))
