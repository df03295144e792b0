"""Backbones: one file a family, and one line here."""

from stepscope.hooks.errors import StepscopeError, nearest
from stepscope.probes.backbones.family import Backbone, BackboneFamily, Outline
from stepscope.probes.backbones.flux import Flux
from stepscope.probes.backbones.stable_diffusion import SD15, SDXL
from stepscope.probes.devices import pick_device

__all__ = ["FAMILIES", "Backbone", "BackboneFamily", "Outline", "family_of", "pick_device"]

FAMILIES: tuple[BackboneFamily, ...] = (Flux(), SD15, SDXL)


def family_of(backbone: Backbone) -> BackboneFamily:
    """The family of a backbone. Raises StepscopeError for one that is not known."""
    known = {family.name: family for family in FAMILIES}
    if backbone.family not in known:
        raise StepscopeError(
            f"backbone.family={backbone.family!r}; {nearest(backbone.family, known)}"
        )
    return known[backbone.family]
