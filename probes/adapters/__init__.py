"""Adapters: one file, one line here and one YAML in `conf/adapter/` each."""

from collections.abc import Mapping
from typing import Any

from stepscope.hooks.errors import StepscopeError, nearest
from stepscope.probes.adapters.adapter import Adapter, ModelPlace, RunFacts
from stepscope.probes.adapters.infusenet import InfuseNetSettings
from stepscope.probes.adapters.instantid import InstantIDSettings
from stepscope.probes.adapters.ip_adapter import IPAdapterSettings
from stepscope.probes.adapters.loaded import Loaded, Steps
from stepscope.probes.adapters.lora import LoraSettings
from stepscope.probes.adapters.pulid import PulidSettings
from stepscope.probes.values import checked

__all__ = [
    "ADAPTERS",
    "Adapter",
    "Loaded",
    "ModelPlace",
    "RunFacts",
    "Steps",
    "adapter_of",
    "register",
]

ADAPTERS: list[type[Adapter]] = [
    InfuseNetSettings,
    IPAdapterSettings,
    LoraSettings,
    InstantIDSettings,
    PulidSettings,
]
"""Every kind of adapter."""


def register(kind: type[Adapter]) -> None:
    """Add a kind of adapter of your own, in place of one of the same name."""
    ADAPTERS[:] = [*(one for one in ADAPTERS if one.KIND != kind.KIND), kind]


def adapter_of(values: Mapping[str, Any], under: str = "adapter") -> Adapter:
    """The settings of an adapter from plain values; `kind` says which, InfuseNet where none is named.

    under: the key that holds them. Raises StepscopeError for a value that is wrong, missing or unknown.
    """
    known = {kind.KIND: kind for kind in ADAPTERS}
    kind = values.get("kind", InfuseNetSettings.KIND)
    if kind not in known:
        raise StepscopeError(f"{under}.kind={kind!r}; {nearest(str(kind), known)}")
    return checked(known[kind], values, under)
