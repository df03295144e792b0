"""A training log: rows of figures in a CSV file, and a picture of their curves beside it."""

import csv
from pathlib import Path


class Log:
    """Rows of figures in a CSV file, and a picture of the curves beside it."""

    def __init__(self, path: Path, *, resume: bool):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        if not resume:
            path.unlink(missing_ok=True)

    def row(self, **figures: float) -> None:
        new = not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(figures)
            writer.writerow(f"{value:.6g}" for value in figures.values())
        print(self.path.stem, *(f"{k} {v:.5g}" for k, v in figures.items()), flush=True)

    def picture(self) -> None:
        """Draw every column against the step; beside the CSV, as PNG."""
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        with self.path.open() as file:
            rows = list(csv.DictReader(file))
        names = [n for n in rows[0] if n not in ("step", "seconds", "rate")]
        figure, axes = plt.subplots(1, len(names), figsize=(3 * len(names), 2.4), squeeze=False)
        steps = [float(r["step"]) for r in rows]
        for axis, name in zip(axes[0], names, strict=True):
            axis.plot(steps, [float(r[name]) for r in rows])
            axis.set(title=name, xlabel="step")
        figure.tight_layout()
        figure.savefig(self.path.with_suffix(".png"), dpi=80)
        plt.close(figure)
