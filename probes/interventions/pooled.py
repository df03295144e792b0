"""Means over the image's tokens: of the whole image, or of each region of a square grid of them."""

from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from jaxtyping import Float

from stepscope.hooks.errors import StepscopeError


@dataclass(frozen=True)
class Regions:
    """The image's tokens, (token_y, token_x), cut into `side` x `side` regions; 1 is the whole image.

    Raises StepscopeError where the regions would differ in size.
    """

    grid: tuple[int, int]
    side: int = 1

    def __post_init__(self) -> None:
        if self.side < 1 or any(tokens % self.side for tokens in self.grid):
            raise StepscopeError(
                f"regions={self.side}: {self.grid[0]} x {self.grid[1]} image tokens are not cut into "
                f"{self.side} x {self.side} equal regions"
            )

    def __len__(self) -> int:
        return self.side**2

    def pooled(
        self, values: Float[torch.Tensor, "row token channel"]
    ) -> Float[torch.Tensor, "row region channel"]:
        """Means over each region's tokens, in float32. Raises StepscopeError for other tokens."""
        y, x = self.grid
        if values.shape[1] != y * x:
            raise StepscopeError(
                f"directions are means over the {y * x} image tokens, and a site has {values.shape[1]}: "
                "name image streams, sites=['*.residual.image']"
            )
        pattern = "row (r y s x) channel -> row r s y x channel"
        cut = rearrange(values.float(), pattern, r=self.side, s=self.side, y=y // self.side)
        return cut.mean((3, 4)).flatten(1, 2)

    def spread(
        self, values: Float[torch.Tensor, "*lead region channel"]
    ) -> Float[torch.Tensor, "*lead token channel"]:
        """Every token has its region's values."""
        y, x = (tokens // self.side for tokens in self.grid)
        cut = values.unflatten(-2, (self.side, self.side))
        return repeat(cut, "... r s channel -> ... (r y s x) channel", y=y, x=x)
