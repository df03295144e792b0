"""One list of metrics: each is a file, with fields, a call, units and a direction."""

from stepscope.analysis.metrics.arcface import Arcface, ArcfaceFinal
from stepscope.analysis.metrics.blur_null import BlurNull
from stepscope.analysis.metrics.chance import Chance
from stepscope.analysis.metrics.contrast import Contrast
from stepscope.analysis.metrics.decode import Decode
from stepscope.analysis.metrics.dinov2 import Dinov2, Dinov2Step
from stepscope.analysis.metrics.edited_identity import EditedIdentity
from stepscope.analysis.metrics.latency import Latency
from stepscope.analysis.metrics.lpips import Lpips, LpipsStep
from stepscope.analysis.metrics.metric import Metric
from stepscope.analysis.metrics.perceptual_pocket import (
    PerceptualDistancePocket,
    PerceptualDistancePocketStep,
)
from stepscope.analysis.metrics.prompt_clip import EditedPromptClip, PromptClip
from stepscope.analysis.metrics.prompt_pocket import EditedPromptPocket
from stepscope.analysis.metrics.reference import Reference
from stepscope.analysis.metrics.reference_clip import (
    EditedReferenceClip,
    ReferenceClip,
    ReferenceClipStep,
)
from stepscope.analysis.metrics.reference_dinov2 import (
    EditedReferenceDinov2,
    ReferenceDinov2,
    ReferenceDinov2Step,
)
from stepscope.analysis.metrics.reference_image import ReferenceImage
from stepscope.analysis.metrics.reference_pocket import (
    EditedReferenceHatPocket,
    EditedReferenceLookPocket,
    ReferenceHatPocket,
    ReferenceHatPocketStep,
    ReferenceLookPocket,
    ReferenceLookPocketStep,
)
from stepscope.analysis.metrics.rereads import (
    ArcfaceCarried,
    ArcfaceCommitted,
    ArcfaceSwapped,
    DecodeCarried,
    DecodeCommitted,
    DecodeSwapped,
)
from stepscope.analysis.metrics.sharpness import Sharpness
from stepscope.analysis.metrics.style_gram import EditedStyleGram, StyleGram, StyleGramStep

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
        EditedIdentity,
        EditedPromptPocket,
        PromptClip,
        EditedPromptClip,
        Lpips,
        LpipsStep,
        PerceptualDistancePocket,
        PerceptualDistancePocketStep,
        Dinov2,
        Dinov2Step,
        ReferenceImage,
        ReferenceClip,
        ReferenceClipStep,
        ReferenceDinov2,
        ReferenceDinov2Step,
        ReferenceLookPocket,
        ReferenceLookPocketStep,
        ReferenceHatPocket,
        ReferenceHatPocketStep,
        StyleGram,
        StyleGramStep,
        EditedReferenceClip,
        EditedReferenceDinov2,
        EditedReferenceLookPocket,
        EditedReferenceHatPocket,
        EditedStyleGram,
        Latency,
    )
}
"""In an order in which each comes after those whose variables it reads."""
