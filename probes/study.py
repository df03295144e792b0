"""The schema of a probe run: plain values, checked where they are made."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal, get_args

from pydantic import ConfigDict

from stepscope.hooks.capture import Capture
from stepscope.hooks.errors import StepscopeError, nearest
from stepscope.hooks.labels import stored_seed
from stepscope.hooks.paths import beside
from stepscope.probes.edits import Wanted, listed
from stepscope.probes.places import located, placed
from stepscope.probes.values import checked

TEXT_TOKENS = 512  # diffusers' FluxPipeline.check_inputs
# a key that is none of ours is a mistake, also after a plus
_ONLY: ConfigDict = {"extra": "forbid"}

WindowUnit = Literal["fraction", "step", "sigma"]
ControlKind = Literal["photo", "keypoints"]


@dataclass(frozen=True)
class Backbone:
    """A FLUX model: its name in figures, a hub id or a local folder in diffusers' layout, its dtype."""

    name: str
    path: str
    dtype: Literal["float32", "bfloat16", "float16"]

    __pydantic_config__ = _ONLY

    def __post_init__(self) -> None:
        _one_of("backbone.dtype", self.dtype, ("float32", "bfloat16", "float16"))


@dataclass(frozen=True)
class Adapter:
    """InfuseNet, and what finds and embeds the face that it reads.

    path: hub id or local folder in the published layout; variant: subfolder of the published
        repository (`aes_stage2`, `sim_stage1`), used if `path` does not hold `InfuseNetModel/` itself.
    scale: alpha, the factor of every residual. window: where it is active, (start, end) in
        `window_unit`: `fraction` of the run as InfiniteYou counts it, `step` with start <= step < end,
        or `sigma` with start >= sigma > end.
    guidance: InfuseNet's own guidance embedding (published: 1.0).
    heads: attention heads of the projection (published: 20).
    encoder: the conditioning recogniser, IR-SE50's `.pth` or an ArcFace-form `.onnx` file.
    detector: an insightface pack, by name under `detector_root` or by folder.
    """

    name: str
    path: str
    scale: float
    window: tuple[float, float]
    encoder: str
    detector: str
    detector_root: str = "~/.insightface"
    variant: str = "aes_stage2"
    window_unit: WindowUnit = "fraction"
    guidance: float = 1.0
    heads: int = 20

    __pydantic_config__ = _ONLY

    def __post_init__(self) -> None:
        _one_of("adapter.window_unit", self.window_unit, get_args(WindowUnit))
        if len(self.window) != 2:
            raise StepscopeError(f"adapter.window is a start and an end, got {list(self.window)}")
        start, end = self.window
        object.__setattr__(self, "window", (start, end))
        if not isfinite(self.scale):
            raise StepscopeError(f"adapter.scale={self.scale} is not finite")
        if self.window_unit == "fraction" and not (0 <= start <= 1 and 0 <= end <= 1):
            raise StepscopeError(
                f"adapter.window={[start, end]} in fractions of the run goes from 0 to 1; steps are "
                "counted with adapter.window_unit=step"
            )
        if (start < end) if self.window_unit == "sigma" else (start > end):
            raise StepscopeError(
                f"adapter.window={[start, end]} is empty in {self.window_unit}: sigma falls along a run, "
                "steps and fractions rise"
            )


@dataclass(frozen=True)
class Study:
    """A grid face x prompt x seed under one backbone and adapter.

    faces: images, folders of images, or `.npy` embeddings of shape (512,). prompts: texts, or one
    path of a text file with a prompt a line. seeds: what `torch.manual_seed` takes, -2^63 to 2^64 - 1,
    where a negative one means itself plus 2^64. guidance: the backbone's guidance embedding, None if it
    has none. true_cfg: classifier-free guidance scale; above 1 it needs a second pass a step.
    height, width: pixels. control_image: whose pose the adapter is shown, None for a black image;
    control_image_kind: `photo`, of which the keypoints of the largest face are drawn as InfiniteYou
    does, or `keypoints`, a drawing of them. initial_latents: `.npy`, unpacked, (channel, y, x) or
    (sample, channel, y, x) in grid order; None draws them from the seeds. out: the run's path, None
    for one named after the configuration. edits: what is changed while the model runs.
    """

    backbone: Backbone
    adapter: Adapter | None
    capture: Capture
    faces: tuple[str, ...]
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    steps: int
    guidance: float | None
    true_cfg: float
    negative_prompt: str | None
    height: int
    width: int
    max_sequence_length: int
    control_image: str | None
    control_image_kind: ControlKind
    initial_latents: str | None
    batch_size: int
    device: str
    out: str | None
    dry: bool
    edits: tuple[Wanted, ...] = ()

    __pydantic_config__ = _ONLY

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "height", "width", "max_sequence_length"):
            if getattr(self, name) < 1:
                raise StepscopeError(f"{name}={getattr(self, name)} is not positive")
        for name in ("prompts", "seeds"):
            if not getattr(self, name):
                raise StepscopeError(f"{name} is empty: name at least one")
        kinds = get_args(ControlKind)
        _one_of("control_image_kind", self.control_image_kind, kinds)
        if self.adapter is not None and not self.faces:
            raise StepscopeError(
                f"adapter={self.adapter.name} needs a face: faces=[portrait.jpg], a folder or a .npy"
            )
        if not all(-(2**63) <= seed < 2**64 for seed in self.seeds):
            raise StepscopeError(
                f"seeds={list(self.seeds)}: torch takes 64 bits, from -2^63 to 2^64 - 1"
            )
        if len({stored_seed(seed) for seed in self.seeds}) != len(self.seeds):
            raise StepscopeError(
                f"seeds={list(self.seeds)} names one twice (-1 and 2^64 - 1 are the same)"
            )
        if self.max_sequence_length > TEXT_TOKENS:
            raise StepscopeError(
                f"max_sequence_length={self.max_sequence_length}: FLUX reads {TEXT_TOKENS} at most"
            )

    @property
    def branches(self) -> int:
        """2 with classifier-free guidance, else 1."""
        return 2 if self.true_cfg > 1 else 1

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Study":
        """From a resolved configuration of plain values, as the entry modules make it.

        Raises StepscopeError for a value of the wrong type.
        """
        values = dict(config)
        values.pop("complexity", None)  # an experiment's word on its prompts, for tables alone
        values["capture"] = values.pop("record", None)
        if values.get("adapter", {}).get("name") == "none":
            values["adapter"] = None
        if "edits" in values:
            values["edits"] = listed(values["edits"])
        for name in {"faces", "prompts", "seeds"} & values.keys():
            if not isinstance(values[name], list):
                values[name] = [values[name]]
        return checked(cls, placed(values))


def prompts_of(study: Study) -> list[str]:
    """The study's prompts; the lines of a text file where one is named, but empty ones.

    Raises StepscopeError if there is no such file, nothing in it, no text in UTF-8, or a prompt twice.
    """
    if len(study.prompts) == 1 and study.prompts[0].endswith(".txt"):
        path = located(study.prompts[0])
        if not path.is_file():
            raise StepscopeError(f"no prompt file {str(path)!r}{beside(path)}")
        try:
            # Windows' Notepad begins a file with a mark
            text = path.read_text(encoding="utf-8-sig")
        except ValueError as error:
            raise StepscopeError(f"prompt file {str(path)!r} is not text in UTF-8") from error
        lines = [line.strip() for line in text.splitlines()]
        if not any(lines):
            raise StepscopeError(f"prompt file {str(path)!r} is empty: a prompt a line")
        return _each_once([line for line in lines if line], f"prompt file {str(path)!r}")
    return _each_once(study.prompts, "prompts")


def _each_once(prompts: Sequence[str], what: str) -> list[str]:
    for text, count in Counter(prompts).items():
        if count > 1:
            raise StepscopeError(f"{what} has {text!r} {count} times: a sample is made once")
    return list(prompts)


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise StepscopeError(f"{name}={value!r}; {nearest(value, known)}")
