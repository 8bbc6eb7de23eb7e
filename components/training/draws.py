"""The random numbers of one optimiser step."""

import torch
from torch import Tensor

from components.identity import derive_seed


class Draws:
    """Random numbers that depend on (seed, epoch, step) alone: a resumed run draws what the interrupted one would."""

    def __init__(self, seed: int, epoch: int, step: int, device: torch.device) -> None:
        self._generator = torch.Generator(device).manual_seed(derive_seed(seed, "step", epoch, step))

    def normal(self, num: int, images: Tensor) -> Tensor:
        """N(0, 1) in float32, `num` for each of the images: (num, B, C, H, W)."""
        return torch.randn((num, *images.shape), generator=self._generator, device=images.device)

    def uniform(self, images: Tensor, *, high: float) -> Tensor:
        """U[0, high) in float32, one for each of the images: (B,)."""
        return high * torch.rand(len(images), generator=self._generator, device=images.device)
