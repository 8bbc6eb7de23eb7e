"""Which images the steps of an epoch hold."""

from collections.abc import Iterator

import torch
from torch import Tensor

from components.params import Train
from components.tools.hashing import derive_seed
from components.training.objectives import method_of


def images_per_epoch(num_images: int, settings: Train) -> int:
    """How many images the steps of an epoch hold; see `steps_of_epoch`."""
    groups, size = method_of(settings).steps_per_batch, settings.batch_size
    return num_images // size * (size - size % groups) + (last := num_images % size) - last % groups


def steps_of_epoch(
    num_images: int, epoch: int, settings: Train, seed: int, device: torch.device, chance: Tensor | None = None
) -> Iterator[Tensor]:
    """Row indices of each optimiser step of an epoch: of all images in random order, or of as many that are drawn with
    replacement, each in proportion to its `chance` (N,).

    A batch of n images, the smaller last one too, is split into consecutive groups of floor(n / groups); the remainder
    is left out, as in the published runs.
    """
    groups = method_of(settings).steps_per_batch
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    if chance is None:
        order = torch.randperm(num_images, generator=generator)
    else:
        possible = chance.cpu().nonzero().flatten()  # so that rounding draws no other
        drawn = torch.multinomial(chance.cpu()[possible], num_images, replacement=True, generator=generator)
        order = possible[drawn]
    for batch in order.to(device).split(settings.batch_size):  # type: ignore[no-untyped-call]
        size = len(batch) // groups
        if size:
            yield from batch[: size * groups].view(groups, size)
