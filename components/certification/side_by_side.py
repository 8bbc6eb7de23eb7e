"""Many images, a few of them side by side, each computed by one thread; and how that ends before they are all done."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

GRACE_SECONDS = 8.0
"""After a request to stop: what an image in flight gets to be finished. The flow kills a stage 20 seconds after it."""

T = TypeVar("T")


class GivenUp(Exception):
    """An image is left for a later run."""


class Stopping:
    """When to end. After the deadline no further image is begun; on request, images in flight are given up as well,
    unless they are finished within the grace period."""

    def __init__(
        self,
        deadline: float = math.inf,
        requested: Callable[[], bool] = lambda: False,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        """Args:
        deadline: on the monotonic clock.
        requested: asked from several threads.
        """
        self._deadline, self._requested, self._grace_seconds = deadline, requested, grace_seconds
        self._end_of_grace = math.inf

    def begins_no_more(self) -> bool:
        return self._requested() or time.monotonic() >= self._deadline

    def give_up_in_time(self) -> None:
        """Raises GivenUp where the grace period is over; called before each block of samples."""
        if self._requested():
            now = time.monotonic()
            self._end_of_grace = min(self._end_of_grace, now + self._grace_seconds)
            if now >= self._end_of_grace:
                raise GivenUp


NEVER = Stopping()


def certify_images(
    images: Iterable[tuple[int, Tensor]],
    certify: Callable[[Tensor, int], T],
    *,
    workers: int,
    stopping: Stopping = NEVER,
) -> Iterator[tuple[int, T]]:
    """`certify(image, index)` of each (index, image), in their order, `workers` of them side by side.

    Each image is computed by one thread, with one thread per operation: `workers` changes no certificate.

    Args:
        certify: may raise GivenUp, and the image is left out.
        stopping: where it says so, the images that are not begun yet are left out; what is finished comes all the same.
            The deadline leaves the first image alone, so that a command that is repeated gets on.
    """
    torch.set_num_threads(1)
    pending = iter(images)

    def begin(image: Tensor, index: int) -> T:
        if stopping.begins_no_more():
            raise GivenUp
        return certify(image, index)

    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        futures = [(index, pool.submit(certify, image, index)) for index, image in take(pending, 1)]
        # few at once: an image is decoded when its turn comes
        futures += [(index, pool.submit(begin, image, index)) for index, image in take(pending, 2 * workers - 1)]
        try:
            while futures:
                index, future = futures.pop(0)
                try:
                    certificate = future.result()
                except GivenUp:
                    continue
                yield index, certificate
                if not stopping.begins_no_more():
                    futures += [(index, pool.submit(begin, image, index)) for index, image in take(pending, 1)]
        finally:
            for _, future in futures:
                future.cancel()


def take(items: Iterator[T], num: int) -> Iterator[T]:
    """The next `num` items, or what is left of them."""
    for _, item in zip(range(num), items, strict=False):
        yield item
