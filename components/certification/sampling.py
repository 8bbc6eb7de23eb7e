"""Counting the classes that a network gives to noisy copies of an image: what every procedure here is made of."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from components.certification.noise import noisy_copies
from components.certification.noise.discrete_normal import discrete_normal
from components.certification.noise.native import cache_folder
from components.certification.table import Counting

T = TypeVar("T")

BLOCK = {"cpu": 250, "cuda": 5005}
"""Samples in one forward, for images of up to 3 x 32 x 32 values: fewer leave the cores idle between forwards, more
leave the CPU's cache. 5005 is a twentieth of the field's 100 + 100,000 samples."""


def block_size(device: torch.device, image_shape: tuple[int, ...]) -> int:
    """Samples in one forward: bounds the memory, and belongs to a table's identity, as a network's rounding depends on
    the shape of its batch."""
    values = int(np.prod(image_shape))
    return max(1, BLOCK[device.type] * 3072 // max(values, 3072))


def check_image(image: Tensor, index: int, grid: int) -> None:
    """Raises ValueError when the image is not int32 in [0, grid]."""
    if image.dtype != torch.int32:  # whose bytes the compiled noise reads
        raise ValueError(f"image {index} is {image.dtype}: int32, in steps of the grid, is needed")
    if not ((image >= 0) & (image <= grid)).all():
        raise ValueError(f"image {index} has values outside [0, {grid}], the steps of its grid")


@dataclass(frozen=True)
class Segment:
    """The samples `start` to `stop` of an image (int32 (C, H, W) on the sampler's device), number `index`."""

    image: Tensor
    index: int
    start: int
    stop: int


class Sampler:
    """The smoothed classifier of one network at one sigma, asked by sampling.

    Attributes:
        normal: the distribution of the noise.
        block: samples in one forward.
        compiled: whether the network runs compiled; false where compiling was asked for and failed.
    """

    def __init__(
        self,
        network: nn.Module,
        sigma: float,
        *,
        grid: int,
        image_shape: tuple[int, ...],
        num_classes: int,
        precision: str = "float32",
        compiled: bool = False,
        block: int | None = None,
    ) -> None:
        """Args:
        network: logits (B, num_classes) from images (B, C, H, W) in [0, 1]; put into eval mode. Its weights stay as
            they are from here on: compiled, they are constants.
        grid: steps from 0 to 1 of the grid that images lie on.
        precision: "float32", or "bfloat16" for the network alone, which gets float32 all the same.
        compiled: compile the network for this machine, or say in one line why not.
        block: samples in one forward; None for what suits the device and the images' size.
        """
        self.network = network.eval()
        self.normal = discrete_normal(sigma, grid)
        self.sigma, self.grid, self.num_classes, self.precision = sigma, grid, num_classes, precision
        self.device = next(network.parameters()).device
        self.block = block or block_size(self.device, image_shape)
        self._classify: Any = classify
        self.compiled = compiled and self._compile(image_shape)

    def _compile(self, image_shape: tuple[int, ...]) -> bool:
        from torch._inductor import config  # a second to import, for who compiles alone

        start = time.perf_counter()
        candidate = torch.compile(classify, dynamic=False, fullgraph=True)
        # Weights become constants: cast, folded and laid out for the hardware once, instead of in every block. On a CPU
        # with bfloat16 units that makes LeNet and ResNet-20 two to three times as fast. On a GPU it was never tried.
        frozen = config.patch(freezing=self.device.type == "cpu")
        try:
            os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "inductor"))
            with torch.inference_mode(), frozen:
                candidate(self.network, torch.zeros(self.block, *image_shape, device=self.device), self.precision)
        except Exception as error:  # whatever the compiler trips over, the eager network is right
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            print(f"the network runs uncompiled, as it cannot be compiled: {reason}", file=sys.stderr)
            return False
        self._classify = candidate
        seconds = time.perf_counter() - start
        print(f"network compiled in {seconds:.1f} s (later starts find it in {cache_folder()})", file=sys.stderr)
        return True

    def stream(
        self,
        image: Tensor,
        *,
        seed: int,
        index: int,
        start: int = 0,
        before_block: Callable[[], None] = lambda: None,
    ) -> "Stream":
        """The classes of the noisy copies of an image, from sample `start` on.

        Args:
            image: int32 (C, H, W), in steps of the grid.
            seed, index: key the noise.
            before_block: called before each block of samples; may raise to give up.

        Raises:
            ValueError: the image is not int32 in [0, grid].
        """
        check_image(image, index, self.grid)
        return Stream(self, image.to(self.device), seed, index, start, before_block)

    @torch.inference_mode()
    def predictions(self, image: Tensor, seed: int, index: int, block: int) -> Tensor:
        """The class of each sample of a block, or `BROKEN` or `LOST`: int64 (self.block,).

        A block holds consecutive samples of one image and is always whole: a sample's class depends on nothing else
        that is computed with it.
        """
        start = block * self.block
        return self.shared_predictions([Segment(image, index, start, start + self.block)], seed)[0]

    @torch.inference_mode()
    def shared_predictions(self, segments: Sequence[Segment], seed: int) -> list[Tensor]:
        """As `predictions`, of a block that several images share: int64 (stop - start,) for each segment.

        The noise is that of (seed, image, sample) as always, and the block is whole, so that every forward has one
        shape; in float32 a network may all the same round a sample by where it stands in the block.
        """
        sizes = [segment.stop - segment.start for segment in segments]
        assert sum(sizes) == self.block, "a block is always whole"
        drawn = [
            noisy_copies(s.image, self.normal, seed=seed, index=s.index, start=s.start, stop=s.stop) for s in segments
        ]
        noisy, lost = (torch.cat(parts) if len(parts) > 1 else parts[0] for parts in zip(*drawn, strict=True))
        predictions: Tensor = self._classify(self.network, noisy, self.precision)
        return list(torch.split(torch.where(lost, LOST, predictions), sizes))


class Stream:
    """The samples of one image, in their order, each given out once: what was used to select is never used to bound."""

    def __init__(
        self, sampler: Sampler, image: Tensor, seed: int, index: int, start: int, before_block: Callable[[], None]
    ) -> None:
        self._sampler, self._image, self._seed, self._index = sampler, image, seed, index
        self._before_block = before_block
        self.position = start
        """The next sample."""
        self._ready = torch.empty(0, dtype=torch.int64, device=image.device)

    def count(self, num: int) -> np.ndarray:
        """How often each class wins among the next `num` samples that are not lost: int64 (num_classes,).

        Raises:
            FloatingPointError: a logit is not finite.
            ValueError: the network answers a class beyond `num_classes`.
        """
        classes = torch.arange(LOST, self._sampler.num_classes, device=self._image.device)
        counts = torch.zeros(len(classes), dtype=torch.int64, device=self._image.device)
        stop = self.position + num
        while self.position < stop:
            if not len(self._ready):
                self._before_block()
                block, done = divmod(self.position, self._sampler.block)
                self._ready = self._sampler.predictions(self._image, self._seed, self._index, block)[done:]
            take = min(len(self._ready), stop - self.position)
            taken, self._ready = self._ready[:take], self._ready[take:]
            counts += (taken[:, None] == classes).sum(0)
            self.position += take
        return checked_counts(counts, num, self._index)


def answered(procedure: Counting[T], count: Callable[[int], np.ndarray]) -> T:
    """What a procedure answers when `count`, as that of a stream, gives it its counts."""
    try:
        num = next(procedure)
        while True:
            num = procedure.send(count(num))
    except StopIteration as done:
        answer: T = done.value
        return answer


def checked_counts(counts: Tensor, num: int, index: int) -> np.ndarray:
    """The counts of the classes, of counts that begin with those of `LOST` and `BROKEN`.

    Raises:
        FloatingPointError: there are broken samples.
        ValueError: the counts do not sum to `num`.
    """
    lost, broken, *by_class = counts.tolist()  # the one wait for the device
    if broken:
        raise FloatingPointError(f"image {index}: a logit is not finite, nothing can be certified; retrain")
    if lost + sum(by_class) != num:  # what is missing would be taken for lost
        raise ValueError(f"image {index}: the network knows more than {len(by_class)} classes")
    return np.array(by_class, dtype=np.int64)


BROKEN, LOST = -1, -2
"""In the place of a sample's class: a logit is not finite; the noise is lost."""


def classify(network: nn.Module, images: Tensor, precision: str) -> Tensor:
    """The class of each image, `BROKEN` where a logit is not finite."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        logits = network(images)
    logits = logits.float()
    return torch.where(logits.isfinite().all(-1), logits.argmax(-1), BROKEN)
