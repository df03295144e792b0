"""`TRITON_INTERPRET=1 python -m tests.interpreted_kernel`: largest relative error of the sums."""

import torch

from stepscope.hooks import kernel
from tests.test_one_reading import summed


def main() -> None:
    made, worst = torch.Generator().manual_seed(0), 0.0
    for channels in (96, 1536):
        image, sequence = (torch.randn(2, n, channels, generator=made) for n in (150, 80))
        streams = [image.bfloat16(), sequence.bfloat16()[:, 5:]]
        groups = [
            (which, row, first, min(kernel.GROUP, stream.shape[1] - first))
            for which, stream in enumerate(streams)
            for row in range(2)
            for first in range(0, stream.shape[1], kernel.GROUP)
        ]
        table = torch.tensor(groups, dtype=torch.int32)
        blocks = -(-channels // kernel.width(channels))
        shapes = {
            "of_channels": (len(groups), channels),
            "of_groups": (len(groups), blocks),
            "of_tokens": (2, 140, blocks),
        }
        for names in (("of_channels", "of_tokens"), ("of_groups",), ("of_channels",)):
            into = {name: torch.full(shapes[name], torch.nan) for name in names}
            want = {name: torch.full(shapes[name], torch.nan) for name in names}
            kernel.squares(streams, table, **into)
            summed(streams, table, **dict.fromkeys(shapes) | want)
            for name in names:
                error = float(((into[name] - want[name]) / want[name].max()).abs().max())
                worst = max(worst, error) if error == error else float("inf")
    print(worst)


if __name__ == "__main__":
    main()
