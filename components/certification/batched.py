"""Many images at once: the procedures of all of them, with samples that share the network's batches.

An image that needs few samples would leave most of its last block unused; here the blocks of a request are filled with
the samples of whichever images still ask. Each image keeps its own noise, its own samples in their order, each used
once: what a procedure is told is what it would be told alone.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from components.certification.sampling import LOST, Sampler, Segment, check_image, checked_counts
from components.certification.table import Counting

T = TypeVar("T")


def answer_together(
    sampler: Sampler,
    images: Tensor,
    procedure: Callable[[int], Counting[T]],
    *,
    seed: int,
    pool: Executor,
    at_once: int,
    before_round: Callable[[], None] = lambda: None,
) -> list[T]:
    """What `procedure(index)` answers for each image.

    Args:
        images: int32 (B, C, H, W), in steps of the sampler's grid.
        seed: keys the noise, with the index of each image.
        pool: computes the blocks, `at_once` of them per round.
        before_round: may raise to give up.

    Raises:
        ValueError: an image is not int32 in [0, grid]; nothing is sampled then.
        FloatingPointError: a logit is not finite.
    """
    for index, image in enumerate(images):
        check_image(image, index, sampler.grid)
    asking = [
        _Image(image, index, procedure(index), sampler.num_classes)
        for index, image in enumerate(images.to(sampler.device))
    ]
    while waiting := [image for image in asking if image.left]:
        before_round()
        blocks = shared_blocks(waiting, sampler.block, at_once)
        classified = pool.map(partial(sampler.shared_predictions, seed=seed), blocks)
        for block, predictions in zip(blocks, classified, strict=True):
            for segment, part in zip(block, predictions, strict=True):
                asking[segment.index].receive(part)
    return [image.answer for image in asking]


class _Image(Generic[T]):
    """One image's procedure, and where its samples stand."""

    def __init__(self, image: Tensor, index: int, procedure: Counting[T], num_classes: int) -> None:
        self.image, self.index, self._procedure = image, index, procedure
        self._classes = torch.arange(LOST, num_classes, device=image.device)
        self.drawn = 0
        """The next sample to draw."""
        self.left = 0
        """How many samples the procedure still waits for; none once it has its answer."""
        self._go_on(None)

    def _go_on(self, counts: np.ndarray | None) -> None:
        """Let the procedure ask for its next samples, or answer."""
        try:
            self._asked = self._procedure.send(counts)  # type: ignore[arg-type]  # None starts a generator
            while not self._asked:
                self._asked = self._procedure.send(np.zeros(len(self._classes) + LOST, dtype=np.int64))
        except StopIteration as done:
            self.answer: T = done.value
            return
        self.left = self._asked
        self._counts = torch.zeros_like(self._classes)

    def receive(self, predictions: Tensor) -> None:
        """The classes of the next samples, in their order; what comes after the answer is left out."""
        while self.left and len(predictions):
            taken, predictions = predictions[: self.left], predictions[self.left :]
            self._counts += (taken[:, None] == self._classes).sum(0)
            self.left -= len(taken)
            if not self.left:
                self._go_on(checked_counts(self._counts, self._asked, self.index))


def shared_blocks(waiting: Sequence[_Image], size: int, most: int) -> list[list[Segment]]:
    """Up to `most` whole blocks of the samples that images wait for, in the order of the images.

    Where they wait for less than the last block holds, the last image is sampled ahead.
    """
    room, drawing = size * most, []
    for image in waiting:
        if room:
            num = min(image.left, room)
            room -= num
            drawing.append((image, num if image is not waiting[-1] else num + room % size))
    segments = []
    for image, num in drawing:
        segments.append(Segment(image.image, image.index, image.drawn, image.drawn + num))
        image.drawn += num
    return list(cut(segments, size))


def cut(segments: Sequence[Segment], size: int) -> Iterator[list[Segment]]:
    """Blocks of `size` samples each, cut from segments that fill them."""
    block: list[Segment] = []
    room = size
    for segment in segments:
        start = segment.start
        while start < segment.stop:
            stop = min(segment.stop, start + room)
            block.append(replace(segment, start=start, stop=stop))
            room -= stop - start
            start = stop
            if not room:
                yield block
                block, room = [], size
