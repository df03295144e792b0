"""The configuration that words compose to, as Hydra's entry point would have it."""

from collections.abc import Sequence
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf


def composed(overrides: Sequence[str], config: str = "config") -> dict[str, Any]:
    """The configuration that a command would have, as plain values; `stepscope probe` has `config`."""
    if GlobalHydra.instance().is_initialized():
        found = compose(config, overrides=list(overrides))
    else:
        with initialize_config_module("stepscope.conf", version_base="1.3"):
            found = compose(config, overrides=list(overrides))
    values: Any = OmegaConf.to_container(found, resolve=True, throw_on_missing=True)
    return values
