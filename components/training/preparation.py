"""What a method computes of every training image before an epoch's first step, beside the steps.

What it finds is part of the training's state, a dictionary of tensors with one row per training image: checkpoints hold
it, the objective gets its step's rows of it, and `CHANCE` in it decides which images the epoch draws. It depends on the
network, the images, the seed and the epoch alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from components.data.streaming import FileSplit, to_unit_interval
from components.params import Train
from components.training.attack import CHUNK, eval_mode
from components.training.draws import Draws
from components.training.views import augmented, training_views

CHANCE = "chance"
"""Float64 (N,): an epoch draws each of its images in proportion to this, with replacement; never one with chance 0."""
CHUNK_GPU = 1024
"""Noisy copies per forward on a GPU, which no gradient follows."""
COPIES_PER_PIECE = 2**16
"""Noisy copies, all images together, between two moments at which the training may stop."""


@dataclass(frozen=True)
class TrainingImages:
    """All training images, before an epoch."""

    pixels: Tensor | FileSplit
    labels: Tensor
    max_value: int
    settings: Train
    seed: int
    epoch: int

    @torch.no_grad()
    def count_classes(
        self, network: nn.Module, rows: Tensor, *, sigma: float, copies: int, use: str, augment: bool = False
    ) -> Iterator[tuple[Tensor, Tensor, float]]:
        """How often the network, in eval mode, answers each class for noisy copies of some images.

        Args:
            rows: int64, row numbers. A later call with the rows that are left after a piece gives what the first would.
            copies: per image.
            use: names the random numbers.
            augment: whether one training view of each image is taken, where the recipe has such, instead of the image.
                Of an image file, it is always one.

        Yields:
            Some of the rows, the counts for each (B, K), and which share of the rows is done.
        """
        device, done = rows.device, 0
        chunk = CHUNK_GPU if device.type == "cuda" else CHUNK
        pieces = list(rows.split(max(1, min(chunk, COPIES_PER_PIECE // copies))))  # type: ignore[no-untyped-call]
        for piece, batch in zip(pieces, training_views(self.pixels, pieces, self.seed, self.epoch), strict=True):
            first = int(piece[0])
            if augment and self.settings.augment == "crop_flip":
                batch = augmented(batch, Draws(self.seed, self.epoch, first, device, use=f"{use} view"))
            draws = Draws(self.seed, self.epoch, first, device, use=use)
            images = to_unit_interval(batch, self.max_value)
            counts = self._counts(network, images, sigma, copies, max(1, chunk // len(piece)), draws)
            done += len(piece)
            yield piece, counts, done / len(rows)

    def _counts(
        self, network: nn.Module, images: Tensor, sigma: float, copies: int, at_once: int, draws: Draws
    ) -> Tensor:
        """The classes' counts (B, K) over noisy copies, `at_once` per image in a forward."""
        counts: Tensor | None = None
        in_bfloat16 = self.settings.precision == "bfloat16"
        with eval_mode(network) as classifier, torch.autocast(images.device.type, torch.bfloat16, enabled=in_bfloat16):
            for start in range(0, copies, at_once):
                noise = sigma * draws.normal(min(at_once, copies - start), images)
                logits = classifier((images + noise).flatten(0, 1))
                classes = torch.arange(logits.shape[1], device=logits.device)
                hits = logits.argmax(-1)[:, None] == classes
                found = hits.unflatten(0, noise.shape[:2]).sum(0)
                counts = found if counts is None else counts + found
        assert counts is not None, "there is at least one copy"
        return counts


class Preparation(Protocol):
    """What a method computes before an epoch, in pieces, between which the training may stop."""

    def __call__(
        self,
        network: nn.Module,
        images: TrainingImages,
        known: dict[str, Tensor],
        *,
        sigma: float,
        own: Any,
        gaussian: nn.Module | None,
    ) -> Iterator[tuple[float, dict[str, Tensor]]]:
        """Args:
            network: as the epoch finds it, in train mode; left so.
            known: what was found before; {} at first, and what the last checkpoint held after an interruption.
            own: the method's hyper-parameters.
            gaussian: the network of `targets`, where the method has such.

        Yields:
            The share that is done, and all that is known by then; the epoch begins with the last. Nothing where the
            epoch needs nothing new.
        """
        ...
