"""The words of a run: its axes, and every variable with its dimensions, unit and meaning, declared once."""

from dataclasses import dataclass

AXES = {
    "sample": "one generated image: a face, a prompt and a seed",
    "step": "denoising step, in order of time; 0 starts from noise",
    "branch": "what a forward pass is conditioned on: positive, negative, perturbed, image_only",
    "block": "transformer block of the denoiser, in order of execution",
    "adapter_block": "transformer block of the adapter's own network, in order of execution",
    "injection": "place at which an adapter adds to the denoiser: block.stream.adapter",
    "stream": "which tokens: image, reference, text, padding, image_prompt, identity",
    "stage": "part of the pipeline that is timed",
    "channel": "latent channel",
    "y": "minus the latent row, from the top: 0, -1, ..., so that plots draw the top on top",
    "x": "latent column, from the left",
    "token_y": "minus the row of the image token in the token grid, from the top: 0, -1, ..., so that "
    "plots draw the top on top",
    "token_x": "column of the image token's place in the token grid, from the left",
    "row": "minus the image row in pixels, from the top: 0, -1, ..., so that plots draw the top on top",
    "column": "image column in pixels, from the left",
    "crop_row": "minus the row of the aligned face in pixels, from the top: 0, -1, ..., so that plots draw "
    "the top on top",
    "image_row": "minus the row of the image prompt in pixels, from the top: 0, -1, ..., so that plots "
    "draw the top on top",
    "image_column": "column of the image prompt in pixels, from the left",
    "rgb": "colour channel",
}
"""Axis words; the same in array dimensions, einops patterns and figures."""

UPRIGHT = ("row", "y", "token_y", "crop_row", "image_row")
"""Axes that run down a picture. xarray and matplotlib draw upwards, so their values descend."""

BLOCK_COORDINATES = {
    "block_kind": "kind of transformer block",
    "block_index": "place of the block among all blocks of the denoiser, in order of execution",
    "adapter_block_kind": "kind of transformer block in the adapter's own network",
    "adapter_block_index": "place of the block among all blocks of the adapter's own network, in order of "
    "execution",
}
"""Coordinates of the axes `block` and `adapter_block`."""

INJECTION_COORDINATES = {
    "injection_adapter": "which adapter: controlnet, or kind:name as in the coordinate adapters",
    "injection_block": "where it adds: a block of the denoiser; skip.NN or mid of a U-Net's ControlNet; "
    "outside for layers in no block",
    "injection_stream": "whose tokens it adds to",
}
"""Coordinates of the axis `injection`."""

STREAMS = ("image", "reference", "text", "padding", "image_prompt", "identity")
"""Tokens of the noisy image; of reference images behind them; of the text, without and of its padding;
what an IP-Adapter adds; and of the face inside an identity adapter. A run has those that occur in it."""

BRANCHES = ("positive", "negative", "perturbed", "image_only")
"""The prompt; the negative prompt; a perturbed copy (PAG, SAG); InstructPix2Pix without the text."""

STAGES = ("face", "text", "adapter", "denoiser", "vae")
SCHEMA_VERSION = 4
READABLE = (1, 2, 3, 4)
"""Schema versions that analysis reads; new runs are of the newest."""
GROWABLE = (2, 3, 4)
"""Schema versions of the runs that samples are added to. A run keeps its version and its form."""


@dataclass(frozen=True)
class Variable:
    """One recorded quantity: its dimensions, numpy dtype, unit and meaning (`description` on disk).

    dtype: of numpy, or bfloat16. whole: a tensor of a model, whose chunks are what one pass gave of one
    sample, uncompressed.
    """

    dims: tuple[str, ...]
    dtype: str
    units: str
    long_name: str
    whole: bool = False

    @property
    def stored(self) -> str:
        """The numpy dtype on disk."""
        return "uint16" if self.dtype == "bfloat16" else self.dtype

    def unit(self) -> dict[str, str]:
        """The attribute `units`; text has none, and plots would write one behind its name."""
        return {} if self.dtype == "str" else {"units": self.units}


def described(name: str, meaning: str) -> dict[str, str]:
    """Attributes of a variable on disk: its name in words, which plots label axes with, and its meaning."""
    return {"long_name": name.replace("_", " "), "description": meaning}


_NORM = (
    "root mean square over tokens of the L2 norm over channels of {}, reduced in float32: "
    "sqrt(mean_t |h_t|^2)"
)
_ATTENTION = (
    "the attention module's output, before its gate (gate_msa, c_gate_msa) is applied: of double-stream "
    "blocks after the output projection, of single-stream blocks before it (proj_out). U-Net: image is "
    "self-attention, text and image_prompt are the two parts of cross-attention"
)
_RESIDUAL = "the residual stream after the block, before an adapter's residual is added"
_CHANNELS = (
    "the few largest channels of the residual stream (their number: attribute capture, massive)"
)
_TOKENS = "L2 norm over channels, per image token, of {}"

VARIABLES: dict[str, Variable] = {
    "latents": Variable(
        ("sample", "step", "channel", "y", "x"),
        "float32",
        "1",
        "noisy latents x_t before the step, unpacked, in the scheduler's scale",
    ),
    "final_latents": Variable(
        ("sample", "channel", "y", "x"),
        "float32",
        "1",
        "latents that the pipeline decoded or returned, unpacked: after the last step and its callback",
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
    "residual_norm_without_massive": Variable(
        ("sample", "step", "branch", "block", "stream"),
        "float32",
        "1",
        f"residual_norm without {_CHANNELS}",
    ),
    "massive_share": Variable(
        ("sample", "step", "branch", "block", "stream"),
        "float32",
        "1",
        f"share of the squared residual norm that is held by {_CHANNELS}",
    ),
    "adapter_attention_norm": Variable(
        ("sample", "step", "adapter_block", "stream"),
        "float32",
        "1",
        _NORM.format("the attention output inside the adapter's own blocks, before its gate")
        + "; NaN where the adapter was not run",
    ),
    "contribution": Variable(
        ("sample", "step", "branch", "injection"),
        "float32",
        "1",
        "|alpha r| / |h|: L2 norm over tokens and channels of what the adapter adds at the place, over "
        "that of what it is added to there; 0 where it adds nothing. ControlNet: to the image tokens "
        "after a block (U-Net: to a skip connection). IP-Adapter: to the text's part of a "
        "cross-attention's output (FLUX: to the image tokens after a block). LoRA: to its layers' own "
        "outputs, over all layers of the place",
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
    "image": Variable(
        ("sample", "row", "column", "rgb"),
        "uint8",
        "1",
        "image that the pipeline returned, 0 to 255; it is none where `not_finite` names it",
    ),
    "not_finite": Variable(
        ("sample",),
        "str",
        "1",
        "variables with numbers that are not finite, in the order in which they became so, each with its "
        "first step and block: the model gave them, and they are stored as they are (image: 0 there); "
        "empty where all are finite",
    ),
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

FOUND_COORDINATES = ("not_finite",)
"""Variables of samples that are coordinates, and known only when the sample has been made."""

SAMPLE_COORDINATES: dict[str, Variable] = {
    "face": Variable(("sample",), "str", "1", "the face that conditions the sample"),
    "prompt": Variable(("sample",), "str", "1", "the text that conditions the sample"),
    "negative_prompt": Variable(
        ("sample",), "str", "1", "the text of the negative branch; empty without one"
    ),
    "seed": Variable(
        ("sample",),
        "int64",
        "1",
        "seed of the initial noise, as torch takes it: from 2^63 on in two's complement, seed - 2^64; "
        "-1 where no seed alone made it",
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
    "text_tokens": Variable(
        ("sample",),
        "int64",
        "1",
        "tokens of the prompt without padding; -1 where not known (given as embeddings): text is NaN",
    ),
    "arguments": Variable(
        ("sample",),
        "str",
        "1",
        "arguments of the pipeline call as JSON, images and tensors by kind and shape",
    ),
    "adapters": Variable(
        ("sample",), "str", "1", "active LoRA and IP-Adapters with scales and fingerprints, as JSON"
    ),
}
"""Coordinates of samples in every run; a label's further keys are added to them: `hooks.labels`."""
