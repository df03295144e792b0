"""Likeness to the reference image by DINOv2 (Oquab et al. 2023): cosine of two images' class tokens."""

from dataclasses import dataclass
from typing import ClassVar

from stepscope.analysis.metrics.dinov2 import Dinov2Likeness
from stepscope.analysis.metrics.to_reference import (
    EditedToReference,
    StepToReference,
    ToReference,
)


@dataclass(frozen=True)
class ReferenceDinov2(ToReference, Dinov2Likeness):
    """DINOv2 likeness of the final image to the reference image."""

    name: ClassVar[str] = "reference_dinov2"


@dataclass(frozen=True)
class ReferenceDinov2Step(StepToReference, Dinov2Likeness):
    """DINOv2 likeness of each step's x0 to the reference image."""

    name: ClassVar[str] = "reference_dinov2_step"


@dataclass(frozen=True)
class EditedReferenceDinov2(EditedToReference, Dinov2Likeness):
    """DINOv2 likeness of an edited sample's final image to the reference image."""

    name: ClassVar[str] = "edited_reference_dinov2"
