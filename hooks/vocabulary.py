"""The words of a run: its axes, and every variable with its dimensions, unit and meaning, declared once."""

from dataclasses import dataclass

AXES = {
    "sample": "one generated image: a face, a prompt and a seed",
    "step": "denoising step, in order of time; 0 starts from noise",
    "branch": "forward pass of classifier-free guidance: positive, negative",
    "block": "transformer block of the denoiser, in order of execution",
    "adapter_block": "transformer block of the adapter's own network, in order of execution",
    "stream": "which tokens: image, text, identity",
    "stage": "part of the pipeline that is timed",
    "channel": "latent channel",
    "y": "latent row, from the top",
    "x": "latent column, from the left",
    "token_y": "row of the image token's place in the token grid, from the top",
    "token_x": "column of the image token's place in the token grid, from the left",
    "row": "image row in pixels, from the top",
    "column": "image column in pixels, from the left",
    "rgb": "colour channel",
}
"""Axis words; the same in array dimensions, einops patterns and figures."""

STREAMS = ("image", "text", "identity")
BRANCHES = ("positive", "negative")
STAGES = ("face", "text", "adapter", "denoiser", "vae")
SCHEMA_VERSION = 2
READABLE = (1, 2)
"""Schema versions that analysis reads; only the newest is written and added to."""


@dataclass(frozen=True)
class Variable:
    """One recorded quantity: its dimensions, numpy dtype, unit and meaning."""

    dims: tuple[str, ...]
    dtype: str
    units: str
    long_name: str


_NORM = (
    "root mean square over tokens of the L2 norm over channels of {}, reduced in float32: "
    "sqrt(mean_t |h_t|^2)"
)
_ATTENTION = (
    "the attention module's output, before its gate (gate_msa, c_gate_msa) is applied; single-stream "
    "blocks are split at the text length, before proj_out. U-Net: image is self-attention, text is "
    "cross-attention"
)
_RESIDUAL = "the residual stream after the block, before an adapter's residual is added"
_TOKENS = "L2 norm over channels, per image token, of {}"

VARIABLES: dict[str, Variable] = {
    "latents": Variable(
        ("sample", "step", "channel", "y", "x"),
        "float32",
        "1",
        "noisy latents x_t before the step, unpacked, in the scheduler's scale",
    ),
    "final_latents": Variable(
        ("sample", "channel", "y", "x"), "float32", "1", "latents after the last step, unpacked"
    ),
    "velocity": Variable(
        ("sample", "step", "branch", "channel", "y", "x"),
        "float32",
        "1",
        "raw output of the denoiser (velocity for FLUX; the scheduler's prediction type for a U-Net)",
    ),
    "x0": Variable(
        ("sample", "step", "channel", "y", "x"),
        "float32",
        "1",
        "estimate of the clean latents at the step, after guidance (FLUX: x_t - sigma v)",
    ),
    "attention_norm": Variable(
        ("sample", "step", "branch", "block", "stream"), "float32", "1", _NORM.format(_ATTENTION)
    ),
    "residual_norm": Variable(
        ("sample", "step", "branch", "block", "stream"), "float32", "1", _NORM.format(_RESIDUAL)
    ),
    "adapter_attention_norm": Variable(
        ("sample", "step", "adapter_block", "stream"),
        "float32",
        "1",
        _NORM.format("the attention output inside the adapter's own blocks, before its gate")
        + "; NaN where the adapter was not run",
    ),
    "contribution": Variable(
        ("sample", "step", "branch", "block"),
        "float32",
        "1",
        "|alpha r| / |h|: norm of what the adapter adds to the image tokens after the block, over the "
        "norm of what it is added to; 0 where it adds nothing",
    ),
    "attention_token_norm": Variable(
        ("sample", "step", "branch", "block", "token_y", "token_x"),
        "float32",
        "1",
        _TOKENS.format(_ATTENTION),
    ),
    "residual_token_norm": Variable(
        ("sample", "step", "branch", "block", "token_y", "token_x"),
        "float32",
        "1",
        _TOKENS.format(_RESIDUAL),
    ),
    "step_seconds": Variable(
        ("sample", "step"),
        "float64",
        "s",
        "wall time of the step of the batch that the sample was in (its size: coordinate batch_size)",
    ),
    "stage_seconds": Variable(
        ("sample", "stage"),
        "float64",
        "s",
        "wall time of each stage of the batch that the sample was in; NaN where not measured",
    ),
    "image": Variable(("sample", "row", "column", "rgb"), "uint8", "1", "final image, 0 to 255"),
    "sigma": Variable(
        ("step",), "float32", "1", "noise level at the start of the step, as the scheduler has it"
    ),
    "timestep": Variable(
        ("step",), "float32", "1", "timestep at the start of the step, as the scheduler has it"
    ),
    "done": Variable(
        ("sample",), "bool", "1", "written last: every other variable of the sample is complete"
    ),
}
"""Every variable that a run may hold; what is stored of them is said by `Capture`."""

STEP_COORDINATES = ("sigma", "timestep")
"""Variables of steps alone, written with the first sample."""

SAMPLE_COORDINATES: dict[str, Variable] = {
    "face": Variable(("sample",), "str", "1", "the face that conditions the sample"),
    "prompt": Variable(("sample",), "str", "1", "the text that conditions the sample"),
    "negative_prompt": Variable(
        ("sample",), "str", "1", "the text of the negative branch; empty where there was none"
    ),
    "seed": Variable(
        ("sample",),
        "int64",
        "1",
        "seed of the initial noise, as torch takes it: from 2^63 on in two's complement, seed - 2^64; "
        "-1 where not known",
    ),
    "generator": Variable(
        ("sample",),
        "str",
        "1",
        "what drew the initial noise: `seed 7`, or the hash of a generator's state; empty where not known",
    ),
    "batch_size": Variable(
        ("sample",), "int64", "1", "number of samples denoised together; -1 where not known"
    ),
    "call": Variable(
        ("sample",),
        "int64",
        "1",
        "the pipeline call that made the sample: the index of the first sample of that call",
    ),
    "steps_run": Variable(
        ("sample",),
        "int64",
        "1",
        "denoising steps that were run, fewer than `step` has where the call was interrupted; -1 where "
        "not known",
    ),
    "arguments": Variable(
        ("sample",), "str", "1", "scalar arguments of the pipeline call, as JSON"
    ),
    "adapters": Variable(
        ("sample",), "str", "1", "active adapters with their scales and hashes, as JSON"
    ),
}
"""Coordinates of samples in every run; a label's further keys are added to them: `hooks.labels`."""
