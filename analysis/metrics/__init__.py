"""One list of metrics: each is a file, with fields, a call, units and a direction."""

from analysis.metrics.arcface import Arcface, ArcfaceFinal
from analysis.metrics.blur_null import BlurNull
from analysis.metrics.chance import Chance
from analysis.metrics.contrast import Contrast
from analysis.metrics.decode import Decode
from analysis.metrics.dinov2 import Dinov2, Dinov2Step
from analysis.metrics.latency import Latency
from analysis.metrics.lpips import Lpips, LpipsStep
from analysis.metrics.metric import Metric
from analysis.metrics.perceptual_pocket import (
    PerceptualDistancePocket,
    PerceptualDistancePocketStep,
)
from analysis.metrics.reference import Reference
from analysis.metrics.rereads import (
    ArcfaceCarried,
    ArcfaceCommitted,
    ArcfaceSwapped,
    DecodeCarried,
    DecodeCommitted,
    DecodeSwapped,
)
from analysis.metrics.sharpness import Sharpness

METRICS: dict[str, type[Metric]] = {
    kind.name: kind
    for kind in (
        Decode,
        Reference,
        ArcfaceFinal,
        Arcface,
        Chance,
        Sharpness,
        Contrast,
        BlurNull,
        DecodeCarried,
        DecodeSwapped,
        DecodeCommitted,
        ArcfaceCarried,
        ArcfaceSwapped,
        ArcfaceCommitted,
        Lpips,
        LpipsStep,
        PerceptualDistancePocket,
        PerceptualDistancePocketStep,
        Dinov2,
        Dinov2Step,
        Latency,
    )
}
"""In an order in which each comes after those whose variables it reads."""
