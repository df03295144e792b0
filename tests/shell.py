"""The command line in this process, and the words that make it run the tiny reference models."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from stepscope.probes.__main__ import main as probes
from stepscope.probes.command import command
from stepscope.probes.study import Study
from tests.models import INFINITE_YOU

TEXT_TOKENS = 32
PUBLISHED = np.load(INFINITE_YOU / "reference.npz")
"""What the published implementation gave: shared/reference, README.md."""

Words = list[str]


@dataclass(frozen=True)
class Answer:
    """How a command ended, and what it printed."""

    status: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The one line on standard error that a mistake is answered with."""
        (line,) = self.err.splitlines()
        return line


def run_command(words: Words, main: Callable[[], Any] = probes) -> int:
    """`python -m probes WORD...`, from the entry point on; its exit status."""
    before, sys.argv = sys.argv, ["probes", *words]
    try:
        return command(main)
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = before


def listed(*texts: Any) -> str:
    """A list as Hydra reads it, whatever the texts hold."""
    return "[" + ",".join(f"'{text}'" for text in texts) + "]"


def tiny(backbone: str = "dev", **changed: Any) -> Words:
    """A small run of the reference's FLUX; words that are changed to None are left out."""
    words = {
        "backbone": f"flux_{backbone}",
        "backbone.path": INFINITE_YOU / f"flux-{backbone}",
        "backbone.dtype": "float32",
        "prompts": listed("a man portrait cinematic"),
        "seeds": "[0]",
        "steps": 2,
        "height": 64,
        "width": 64,
        "max_sequence_length": TEXT_TOKENS,
        "device": "cpu",
    } | {name.replace("__", "."): value for name, value in changed.items()}
    return [f"{name}={value}" for name, value in words.items() if value is not None]


def infused(backbone: str = "dev", **changed: Any) -> Words:
    """The same with the reference's InfuseNet; `faces` is to be named."""
    adapter = {"adapter": "infusenet", "adapter__path": INFINITE_YOU / "infinite-you"}
    return tiny(backbone, **(adapter | changed))


def study_of(words: Words) -> Study:
    """What the entry point makes of these words."""
    with initialize_config_module("stepscope.conf", version_base="1.3"):
        config: Any = OmegaConf.to_container(
            compose("config", words), resolve=True, throw_on_missing=True
        )
    return Study.from_config(config)
