"""What a study asks of an adapter whose models are loaded: what a pipeline is given, what hooks do."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from torch import nn

from stepscope.probes.faces import Face


@dataclass(frozen=True)
class Steps:
    """The steps of a call. sigmas: of the whole run. first: the run's step at which the call begins."""

    sigmas: Sequence[float]
    first: int = 0


class Loaded:
    """An adapter's models on their device; each kind says what it does otherwise than nothing.

    Each method is given the adapter's settings as they are now: a study may switch it off.
    """

    @property
    def components(self) -> Mapping[str, nn.Module]:
        """What the pipeline is built with: `controlnet`."""
        return {}

    @property
    def found(self) -> Mapping[str, Any]:
        """Where the face of the control image was found; empty without one."""
        return {}

    def attach(self, pipe: Any) -> None:
        """Load into the pipeline what lies in its models, once."""

    def arguments(self, adapter: Any, pipe: Any, steps: Steps) -> dict[str, Any]:
        """The pipeline's arguments that are the same for every batch."""
        return {}

    def hooked(self, adapter: Any, pipe: Any, steps: Steps) -> AbstractContextManager[None]:
        """Under which every call is made: windows, scales, hooks. Nothing of it stays behind."""
        return nullcontext()

    def given(
        self, adapter: Any, pipe: Any, faces: Sequence[Face], branches: int
    ) -> dict[str, Any]:
        """The arguments of one batch, from the face of each row. branches: 2 with a negative pass."""
        return {}
