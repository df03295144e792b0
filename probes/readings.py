"""The readings of a finished run: their names, the variables that they write, and their default steps."""

from dataclasses import replace

from stepscope.hooks.vocabulary import Variable
from stepscope.probes.face_variables import FACE_VARIABLES

GROUP = "reread"
EARLY = 4
"""Last of the first steps that are all in the default `off_from`; then 6, 8 and every fourth."""
_LATENT = ("channel", "y", "x")
DECLARED = {
    "carried_x0": Variable(
        ("sample", "step", *_LATENT),
        "float32",
        "1",
        "estimate of the clean latents from one evaluation at the recorded x_t with the adapter off; "
        "NaN where the sample was not read again",
    ),
    "swapped_x0": Variable(
        ("sample", "step", *_LATENT),
        "float32",
        "1",
        "estimate of the clean latents from one evaluation at the recorded x_t with another person's face "
        "given to the adapter (attribute `others`); NaN where the sample was not read again",
    ),
    "committed_latents": Variable(
        ("sample", "off_from", *_LATENT),
        "float32",
        "1",
        "final latents with the adapter as recorded before step `off_from` and off from there to the end; "
        "the last are the run's own; NaN where the sample was not read again",
    ),
    **{
        f"swapped_{name}": replace(
            declared, long_name=f"of the other person's face: {declared.long_name}"
        )
        for name, declared in FACE_VARIABLES.items()
    },
}
READING_VARIABLES = {
    "carried": ("carried_x0",),
    "swapped": ("swapped_x0", *(f"swapped_{name}" for name in FACE_VARIABLES)),
    "committed": ("committed_latents",),
}
"""The variables that each reading writes."""
READINGS = tuple(READING_VARIABLES)


def default_steps_off(steps: int) -> tuple[int, ...]:
    """The default `off_from` of a run of `steps` steps: dense at first, then every fourth."""
    return tuple(k for k in range(steps) if k <= EARLY or k == 6 or k % 4 == 0)
