"""The schema of a probe run: plain values, checked where they are made."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch

from stepscope.hooks.capture import Capture
from stepscope.hooks.errors import StepscopeError
from stepscope.hooks.labels import stored_seed
from stepscope.hooks.paths import beside
from stepscope.probes.adapters import ADAPTERS, Adapter, RunFacts, adapter_of
from stepscope.probes.backbones import Backbone, BackboneFamily, family_of
from stepscope.probes.backbones.family import ONLY, one_of, planned_branches
from stepscope.probes.edits import Wanted, listed
from stepscope.probes.places import located, placed
from stepscope.probes.values import checked

ControlKind = Literal["photo", "keypoints"]
NEEDED = {
    "face": "a face: faces=[portrait.jpg], a folder or a .npy",
    "picture": "a picture: faces=[style.jpg], a folder or a .npz of embeddings",
}
"""What an adapter needs in `faces`, by what it reads there."""


@dataclass(frozen=True)
class Study:
    """A grid face x prompt x seed under one backbone and adapter.

    faces: images, folders of images, or `.npy` embeddings of shape (512,). prompts: texts, or one
    path of a text file with a prompt a line. seeds: what `torch.manual_seed` takes, -2^63 to 2^64 - 1,
    where a negative one means itself plus 2^64. guidance: the backbone's guidance embedding, None if it
    has none. true_cfg: classifier-free guidance scale; above 1 it needs a second pass a step.
    true_cfg_start: steps at the begin whose negative pass has no effect, PuLID's `timestep_to_start_cfg`.
    height, width: pixels. control_image: whose pose the adapter is shown, None for a black image;
    control_image_kind: `photo`, of which the keypoints of the largest face are drawn as InfiniteYou
    does, or `keypoints`, a drawing of them. initial_latents: `.npy`, unpacked, (channel, y, x) or
    (sample, channel, y, x) in grid order; None draws them from the seeds. out: the run's path, None
    for one named after the configuration. edits: what is changed while the model runs. beside: adapters by
    name that are loaded together with `adapter`, which alone is studied.
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
    true_cfg_start: int = 0
    beside: Mapping[str, Adapter] = field(default_factory=dict)

    __pydantic_config__ = ONLY

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "height", "width", "max_sequence_length"):
            if getattr(self, name) < 1:
                raise StepscopeError(f"{name}={getattr(self, name)} is not positive")
        for name in ("prompts", "seeds"):
            if not getattr(self, name):
                raise StepscopeError(f"{name} is empty: name at least one")
        kinds = get_args(ControlKind)
        one_of("control_image_kind", self.control_image_kind, kinds)
        if not 0 <= self.true_cfg_start <= self.steps:
            raise StepscopeError(
                f"true_cfg_start={self.true_cfg_start}: a step of the run is wanted, 0 to {self.steps}"
            )
        names = [one.name for one in self.adapters.values()]
        brought: dict[str, str] = {}
        for key, adapter in self.adapters.items():
            if names.count(adapter.name) > 1 and key != "adapter":
                raise StepscopeError(f"two adapters are named {adapter.name!r}: {key}.name=...")
            adapter.check(self.facts(), self.faces)
            if adapter.reads is not None and not self.faces:
                raise StepscopeError(f"adapter={adapter.name} needs {NEEDED[adapter.reads]}")
            for what in adapter.FILLS:
                if what in brought:
                    raise StepscopeError(
                        f"{key}: {brought[what]} brings {what} already: name one of the two"
                    )
                brought[what] = adapter.name
        if not all(-(2**63) <= seed < 2**64 for seed in self.seeds):
            raise StepscopeError(
                f"seeds={list(self.seeds)}: torch takes 64 bits, from -2^63 to 2^64 - 1"
            )
        if len({stored_seed(seed) for seed in self.seeds}) != len(self.seeds):
            raise StepscopeError(
                f"seeds={list(self.seeds)} names one twice (-1 and 2^64 - 1 are the same)"
            )
        if self.max_sequence_length > self.family.longest_text:
            raise StepscopeError(
                f"max_sequence_length={self.max_sequence_length}: {self.family.title} reads "
                f"{self.family.longest_text} at most"
            )

    @property
    def family(self) -> BackboneFamily:
        """Of the backbone."""
        return family_of(self.backbone)

    @property
    def adapters(self) -> dict[str, Adapter]:
        """Every adapter by the key that holds its settings: the one that is studied first."""
        first = {"adapter": self.adapter} if self.adapter is not None else {}
        return first | {f"beside.{name}": one for name, one in self.beside.items()}

    @property
    def reads(self) -> set[str]:
        """What the adapters read in the files of `faces`: `face`, `picture`."""
        return {one.reads for one in self.adapters.values() if one.reads is not None}

    def facts(self, device: str = "cpu") -> RunFacts:
        """What an adapter must know of the run."""
        return RunFacts(
            self.backbone.family,
            getattr(torch, self.backbone.dtype),
            device,
            self.width,
            self.height,
            self.control_image,
            self.control_image_kind,
            self.backbone.distillation,
        )

    @property
    def branches(self) -> int:
        """2 with classifier-free guidance, else 1."""
        return len(planned_branches(self))

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Study":
        """From a resolved configuration of plain values, as the entry modules make it.

        Raises StepscopeError for a value of the wrong type.
        """
        values = dict(config)
        values.pop("complexity", None)  # an experiment's word on its prompts, for tables alone
        values["capture"] = values.pop("record", None)
        if "edits" in values:
            values["edits"] = listed(values["edits"])
        for name in {"faces", "prompts", "seeds"} & values.keys():
            if not isinstance(values[name], list):
                values[name] = [values[name]]
        keys = {key for kind in ADAPTERS for key in kind.PLACES}
        values = placed(values, {"backbone": ("path", "base", "weights"), "adapter": keys})
        adapter = values.get("adapter")
        if isinstance(adapter, Mapping):
            named = adapter.get("name") != "none"
            values["adapter"] = adapter_of(adapter) if named else None
        more = values.get("beside") or {}
        values["beside"] = {n: adapter_of(one, f"beside.{n}") for n, one in more.items()}
        return checked(cls, values)


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
