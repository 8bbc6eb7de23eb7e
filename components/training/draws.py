"""The random numbers of one optimiser step."""

from typing import NamedTuple

import torch
from torch import Tensor

from components.tools.hashing import derive_seed


class Shard(NamedTuple):
    """A rank's part of a step's group of `total` images: `first` to `last` (excluded)."""

    first: int
    last: int
    total: int

    @property
    def rows(self) -> slice:
        return slice(self.first, self.last)


class Draws:
    """Random numbers that depend on (seed, epoch, step) alone: a resumed run draws what the interrupted one would.

    A process that holds a shard of the group draws for the whole group and keeps its own rows, so that each image gets
    the numbers that it would get in one process; drawing costs little beside the networks.
    """

    def __init__(
        self, seed: int, epoch: int, step: int, device: torch.device, shard: Shard | None = None, *, use: str = "step"
    ) -> None:
        """Args:
        shard: the rows of the group that this process holds; all of them if None.
        use: streams with different names are unrelated.
        """
        self._generator = torch.Generator(device).manual_seed(derive_seed(seed, use, epoch, step))
        self._shard = shard

    def _of_group(self, images: Tensor) -> Shard:
        shard = self._shard or Shard(0, len(images), len(images))
        assert len(images) == shard.last - shard.first, "numbers are drawn for all images of the shard"
        return shard

    def normal(self, num: int, images: Tensor) -> Tensor:
        """N(0, 1) in float32, `num` for each of the images: (num, B, C, H, W)."""
        shard = self._of_group(images)
        size = (num, shard.total, *images.shape[1:])
        return torch.randn(size, generator=self._generator, device=images.device)[:, shard.rows]

    def uniform(self, images: Tensor, *, high: float) -> Tensor:
        """U[0, high) in float32, one for each of the images: (B,)."""
        shard = self._of_group(images)
        return high * torch.rand(shard.total, generator=self._generator, device=images.device)[shard.rows]

    def integers(self, images: Tensor, *, high: int) -> Tensor:
        """Uniform in 0, ..., high - 1, one for each of the images: int64 (B,)."""
        shard = self._of_group(images)
        return torch.randint(high, (shard.total,), generator=self._generator, device=images.device)[shard.rows]
