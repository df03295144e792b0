"""IdentityNet, the ControlNet of InstantID, which reads a face in place of the text."""

from dataclasses import replace
from typing import Any

from diffusers import ControlNetModel
from torch import Tensor

from stepscope.hooks import families
from stepscope.hooks.errors import StepscopeError
from stepscope.hooks.families.unet import UNET_CONTROLNET


class IdentityNet(ControlNetModel):
    """A ControlNet that reads identity tokens in place of the text, and is not run at scale 0.

    A subclass only because diffusers' pipeline asks for the class. Set `identity` (row of the pass, token,
    channel) before a call.
    """

    identity: Tensor | None = None

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, sample: Tensor, timestep: Any, *, conditioning_scale: float = 1.0, **kwargs: Any
    ) -> Any:
        """Residuals for the U-Net; (None, None) at scale 0, where they would be zero."""
        if conditioning_scale == 0:
            return None, None
        if self.identity is None:
            raise StepscopeError("IdentityNet has no face: set `identity` before the call")
        kwargs["encoder_hidden_states"] = self.identity.to(sample)
        return super().forward(sample, timestep, conditioning_scale=conditioning_scale, **kwargs)


families.register(
    replace(
        UNET_CONTROLNET,
        name="IdentityNet",
        model=IdentityNet,
        context="identity",
        text_encoder=None,
    )
)
