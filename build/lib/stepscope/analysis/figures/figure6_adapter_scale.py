"""Conditioning scale: identity and detection of the final image against the adapter's factor alpha.

(a) Similarity to the reference, mean over the samples in which a face was found; lines: another
person's reference, and other photos of the same person. (b) Share of samples with a face (Wilson's
interval at the effective sample size). (c) The adapter's contribution |alpha r| / |h|, mean over blocks
and steps. alpha = 0 is without adapter, 1 is as trained.
"""

import xarray as xr
from matplotlib.figure import Figure

from stepscope.analysis.evidence import Evidence
from stepscope.analysis.figures.marks import bars, key, look
from stepscope.analysis.figures.readings import reference_lines
from stepscope.analysis.figures.style import canvas, gap, panel
from stepscope.analysis.lookup import MissingEvidenceError, setting
from stepscope.analysis.quantities import contribution, name

EXPERIMENTS = ("adapter_scale",)


def draw(evidence: Evidence) -> Figure:
    """Three panels against alpha."""
    figure = canvas(2.1)
    axes = figure.subplots(1, 3, sharex=True)
    for one, letter, title in zip(
        axes,
        "abc",
        ("identity (cosine)", "samples with a face", "contribution |αr|/|h|"),
        strict=True,
    ):
        panel(one, letter, title)
        one.set_xlabel("adapter scale α")
    rates: list[xr.Dataset] = []
    for k, backbone in enumerate(evidence.backbones):
        runs = sorted(
            evidence.some("adapter_scale", backbone=backbone),
            key=lambda r: setting(r, "adapter.scale"),
        )
        alpha = [setting(run, "adapter.scale") for run in runs]
        ends = [evidence.endpoint(run) for run in runs]
        means = [evidence.average(end) for end in ends]
        rates = [
            rate.rename(rate="mean")
            for end in ends
            if (rate := evidence.detection(end)) is not None
        ]
        try:
            added = [evidence.average(contribution(run).mean(("step", "block"))) for run in runs]
        except MissingEvidenceError as error:
            gap(axes[2], str(error))
            added = []
        for one, found in zip(axes, (means, rates, added), strict=True):
            values = [[float(f[word]) for f in found] for word in ("mean", "low", "high")]
            bars(one, alpha[: len(found)], values, look(k), ls=look(k).line, label=name(backbone))
    if not rates:
        gap(axes[1], "one face: no rate over faces")
    reference_lines(
        evidence, axes[0], evidence.some("adapter_scale", backbone=evidence.baseline)[0]
    )
    axes[1].set_ylim(-0.03, 1.05)
    key(figure, axes[0])
    return figure
