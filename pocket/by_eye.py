"""Do the measures of wholeness see what readers of the grids saw? `python -m pocket.by_eye`.

logs/by_eye.json names the broken faces of figures/whole_*.png by their place, 0 to 99, row by row. Here
each measure's area under the curve is put beside them: the chance that it ranks a face that was called
broken above one that was not.
"""

import json

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pocket import report, shipped
from pocket.process import MODELS
from pocket.training import LOGS
from pocket.unrest import landmark_unrest
from pocket.wholeness import area_under_curve
from pocket.world import SIZE

COLUMNS = 10


def pictures(name: str) -> Tensor:
    """The faces of a grid that report.py wrote: (100, 3, 128, 128) in [0, 1]."""
    sheet = np.asarray(Image.open(report.FIGURES / f"whole_{name}.png"))
    step = SIZE + report.GAP
    cells = [
        sheet[y * step : y * step + SIZE, x * step : x * step + SIZE]
        for y in range(COLUMNS)
        for x in range(COLUMNS)
    ]
    return torch.from_numpy(np.stack(cells)).permute(0, 3, 1, 2).float() / 255


@torch.no_grad()
def main() -> None:
    path = LOGS / "by_eye.json"
    told = json.loads(path.read_text())
    readout, detector = shipped.load_wholeness(MODELS), shipped.load_detector(MODELS)
    broken, scores = [], []
    for name, places in told["broken"].items():
        faces = pictures(name)
        seen = torch.zeros(len(faces), dtype=torch.bool)
        seen[places] = True
        broken.append(seen)
        faults = readout(faces).flatten(1).amax(1)
        scores.append(torch.stack([faults, landmark_unrest(detector, faces)]))
    where, (faults, unrest) = torch.cat(broken), torch.cat(scores, 1)
    told["area_under_curve"] = {
        "read-out": round(area_under_curve(faults[~where], faults[where]), 2),
        "unrest": round(area_under_curve(unrest[~where], unrest[where]), 2),
    }
    path.write_text(json.dumps(told, indent=1) + "\n")
    report.write()


if __name__ == "__main__":
    main()
