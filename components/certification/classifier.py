"""The smoothed classifier as callers get it: checked requests in, certificates out.

The registered model, local use and the service all ask this one object, so that the same request meets the same checks
and the same precision everywhere.
"""

import json
import logging
import math
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from components.certification.batched import answer_together
from components.certification.bounds import round_down
from components.certification.cohen import certifying, predicting
from components.certification.preset_radii import FIRST_LOOK, RadiiCertificate, deciding, last_look
from components.certification.sampling import Sampler
from components.certification.table import ABSTAIN, Certificate, Counting
from components.model.card import ModelCard
from components.params import Bound, smallest_n
from components.tools.device import available_cores

BOUND: Bound = "two_class"
N0 = 100
"""Samples that select the class, beside the n that bound it."""
SMALLEST_FAILURE_PROB = 1e-9
REQUESTS = logging.getLogger("components.serving.requests")
"""One line per request, as JSON; `write_requests` shows them."""
T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """What one request may ask for."""

    images: int = 256
    n: int = 1_000_000
    """Samples per image."""
    seconds: float = 60.0


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Origin:
    """Which registered model this is; empty for one that comes from files."""

    name: str = ""
    version: str = ""


FROM_FILES = Origin()


class TooSlow(ValueError):
    """A request took longer than the limit `seconds`."""


class SmoothedClassifier:
    """The smoothed classifier of trained weights; every answer has fresh, unpredictable noise.

    Each certificate is wrong with probability failure_prob at most, over its own noise. Whoever repeats a request until
    the answer pleases must count that probability once per request.
    """

    def __init__(
        self,
        network: nn.Module,
        card: ModelCard,
        *,
        origin: Origin = FROM_FILES,
        n: int = 10_000,
        failure_prob: float = 0.001,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        """Compiles and warms up what the first request would otherwise wait for.

        Args:
            network: as `trained_model.load` gives it.
            n, failure_prob: of requests that do not name their own.
        """
        self.card, self.origin, self.limits = card, origin, limits
        self.n, self.failure_prob = n, failure_prob
        self.sampler = Sampler(
            network,
            card.sigma,
            grid=card.grid,
            image_shape=tuple(card.image_shape),
            num_classes=len(card.classes),
            precision=card.precision,
        )
        self._workers = 1 if self.sampler.device.type == "cuda" else available_cores()
        self._pool = ThreadPoolExecutor(self._workers, "blocks", torch.set_num_threads, (1,))
        torch.set_num_threads(1)  # images run side by side instead, as when a table is certified
        samples = 2 * self._workers * self.sampler.block
        nothing = torch.zeros(1, *card.image_shape, dtype=torch.int32)
        self._answer(nothing, lambda index: predicting(n=samples, failure_prob=0.01), seed=0, seconds=math.inf)

    def predict(self, images: Tensor, *, n: int = 1000, failure_prob: float | None = None) -> Tensor:
        """The smoothed classifier's class of each image, without a radius: int64 (B,), -1 where it abstains.

        The class that it gives differs from the smoothed classifier's true one with probability `failure_prob` at most.

        Args:
            images: float32 (B, C, H, W) in [0, 1].
            n: samples per image.

        Raises:
            ValueError: as `certify`.
        """
        failure_prob = self.failure_prob if failure_prob is None else failure_prob
        self._check(images, n, failure_prob)
        seed, seconds = secrets.randbits(63), self.limits.seconds
        steps, _ = on_grid(images, self.sampler.grid)
        return torch.tensor(
            self._answer(steps, lambda index: predicting(n=n, failure_prob=failure_prob), seed, seconds)
        )

    def certify(
        self,
        images: Tensor,
        *,
        n: int | None = None,
        failure_prob: float | None = None,
        radius: float | None = None,
    ) -> pd.DataFrame:
        """A certificate for each image.

        Without `radius`, the procedure of Cohen et al. 2019 with the two-class bound: the radius is the largest that n
        samples prove. With it, the sequential procedure at this one radius, which stops as soon as the answer is clear.

        An image on the grid of the model (all 8-bit images are) has the class at all images on the grid within the
        radius. One off the grid is rounded to it: its radius is smaller, and is that of all images around it; see
        `on_grid`.

        Args:
            images: float32 (B, C, H, W) in [0, 1].
            n: samples per image; at a preset radius at most so many, of which it uses the last look's.
            failure_prob: of each certificate.
            radius: the preset radius, with at most nine decimals.

        Returns:
            One row per image: class (-1 where it abstains), class_name, radius (what is certified, rounded down: the
            preset one or 0; 0 also where it abstains), abstain, p_lower (lower bound on the probability of the class
            under the noise, of the selected class where it abstains), p_upper (upper bound on that of every other
            class), n, the samples used after the selection, and rounded, whether the image was off the grid. Its
            `attrs` hold the seed of the noise, and counts: per image, how many of the n samples fell to each class.

        Raises:
            ValueError: one sentence that names what is wrong with the request, or which limit it exceeds.
            TooSlow: it took longer than the limit `seconds`; nothing is answered.
            FloatingPointError: a logit is not finite.
        """
        begin = time.perf_counter()
        n = self.n if n is None else n
        failure_prob = self.failure_prob if failure_prob is None else failure_prob
        self._check(images, n, failure_prob)
        procedure = self._procedure(n, failure_prob, radius)
        seed = secrets.randbits(63)
        steps, losses = on_grid(images, self.sampler.grid)
        certificates = self._answer(steps, procedure, seed, self.limits.seconds)
        answers = self._frame(certificates, losses)
        answers.attrs = {"seed": seed, "counts": [certificate.counts for certificate in certificates]}
        self._log(answers, seed=seed, n=n, failure_prob=failure_prob, radius=radius, begin=begin)
        return answers

    def _procedure(
        self, n: int, failure_prob: float, radius: float | None
    ) -> Callable[[int], Counting[Certificate | RadiiCertificate]]:
        """The procedure for an image by its number, its arguments checked."""
        sigma = self.sampler.sigma
        if radius is None:
            if n < (least := smallest_n(failure_prob, BOUND)):
                raise ValueError(f"n is {n}: at least {least} samples are needed at failure_prob {failure_prob:g}")
            return lambda index: certifying(sigma, n0=N0, n=n, failure_prob=failure_prob, bound=BOUND)
        if isinstance(radius, bool) or not isinstance(radius, int | float) or not 0 <= radius < math.inf:
            raise ValueError(f"radius is {radius!r}: must be a number that is not negative")
        if n < FIRST_LOOK:
            raise ValueError(f"n is {n}: at least {FIRST_LOOK} samples are needed at a preset radius")
        settings: Any = {"n0": N0, "max_n": last_look(n), "failure_prob": failure_prob, "bound": BOUND}
        procedure = partial(deciding, sigma, [radius], **settings)
        next(procedure(index=0))  # it checks the radius
        return lambda index: procedure(index=index)

    def _check(self, images: Any, n: Any, failure_prob: Any) -> None:
        """Refuse what no procedure can answer; the values of the images are checked with the first sample."""
        if not isinstance(images, Tensor):
            raise ValueError(f"images are a {type(images).__name__}: a float32 tensor is needed")
        if images.dtype != torch.float32:
            raise ValueError(f"images are {images.dtype}: float32 in [0, 1] is needed")
        shape = self.card.image_shape
        if list(images.shape[1:]) != shape or not len(images):
            raise ValueError(f"images have shape {list(images.shape)}: must be [B, {', '.join(map(str, shape))}]")
        if len(images) > self.limits.images:
            raise ValueError(f"{len(images)} images in one request: the limit is {self.limits.images} images")
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise ValueError(f"n is {n!r}: must be a whole number of samples")
        if n > self.limits.n:
            raise ValueError(f"n is {n}: the limit is n = {self.limits.n}")
        number = isinstance(failure_prob, float | int) and not isinstance(failure_prob, bool)
        if not number or not SMALLEST_FAILURE_PROB <= failure_prob < 0.5:
            raise ValueError(f"failure_prob is {failure_prob!r}: must be >= {SMALLEST_FAILURE_PROB:g} and < 0.5")

    def _answer(self, images: Tensor, procedure: Callable[[int], Counting[T]], seed: int, seconds: float) -> list[T]:
        end = time.monotonic() + seconds

        def give_up_in_time() -> None:
            if time.monotonic() > end:
                raise TooSlow(
                    f"the request took longer than the limit of {seconds:g} seconds: "
                    "ask for fewer images, a smaller n or a preset radius"
                )

        return answer_together(
            self.sampler,
            images,
            procedure,
            seed=seed,
            pool=self._pool,
            at_once=4 * self._workers,
            before_round=give_up_in_time,
        )

    def _frame(self, certificates: list[Certificate | RadiiCertificate], losses: list[float]) -> pd.DataFrame:
        radii = [c.radius for c in certificates]
        radii = [round_down(max(0.0, r - loss)) if loss else r for r, loss in zip(radii, losses, strict=True)]
        classes = [certificate.predict for certificate in certificates]
        return pd.DataFrame(
            {
                "class": classes,
                "class_name": [self.card.classes[c] if c != ABSTAIN else "" for c in classes],
                "radius": radii,
                "abstain": [c == ABSTAIN for c in classes],
                "p_lower": [certificate.p_lower for certificate in certificates],
                "p_upper": [certificate.p_upper for certificate in certificates],
                "n": [certificate.n for certificate in certificates],
                "rounded": [loss > 0 for loss in losses],
            }
        )

    def _log(self, answers: pd.DataFrame, *, begin: float, **asked: Any) -> None:
        """The request's line: what was asked and answered, and the seed that gives the answer again; no image."""
        line = {
            "event": "answered",
            "time": time.time(),
            "model": self.origin.name,
            "version": self.origin.version,
            "weights_sha256": self.card.weights_sha256,
            **asked,
            "images": len(answers),
            "n_used": int(answers["n"].sum()),
            "abstained": int(answers["abstain"].sum()),
            "radii": answers["radius"].tolist(),
            "seconds": round(time.perf_counter() - begin, 4),
        }
        REQUESTS.info(json.dumps(line))


def on_grid(images: Tensor, grid: int) -> tuple[Tensor, list[float]]:
    """Images in steps of the grid, and what their radii lose by rounding to it.

    An image counts as on the grid, and loses nothing, where each value is within 2**-23 of k / grid: no more than what
    different ways to divide pixels in float32 differ by. Otherwise x is rounded to q(x). An image y
    within R - |x - q(x)| - sqrt(d) / (2 grid) of x is rounded to one within R of q(x), where d is the number of values
    and the last term the most that rounding moves y by.

    Args:
        images: float32 (B, C, H, W).

    Returns:
        int32 (B, C, H, W), and a loss >= 0 per image.

    Raises:
        ValueError: a value is not finite or outside [0, 1].
    """
    for index, image in enumerate(images):
        if not ((image >= 0) & (image <= 1)).all():  # also false for NaN
            raise ValueError(
                f"image {index} has values that are not finite or outside [0, 1]: scale it to [0, 1] first"
            )
    scaled = images.double() * grid
    steps = scaled.round()
    moved = (scaled - steps).abs().flatten(1) / grid
    losses = (moved.norm(dim=1) + math.sqrt(moved.shape[1]) / (2 * grid)) * (1 + 1e-9)
    return steps.int(), torch.where(moved.amax(1) > 2**-23, losses, 0.0).tolist()


def images_of(values: Any) -> Tensor:
    """Numbers that came by JSON, as nested lists or as an array, as a float32 tensor.

    Raises:
        ValueError: they are not numbers, or not of one shape.
    """
    try:
        array = np.asarray(values)
    except (ValueError, OverflowError):
        raise ValueError("images must be nested lists of one shape: [B, C, H, W]") from None
    if array.dtype.kind not in "fiu" or array.ndim == 0:
        raise ValueError("images must be nested lists of numbers in [0, 1]: [B, C, H, W]")
    with np.errstate(over="ignore"):  # what becomes infinite is refused as such
        return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def write_requests() -> None:
    """Write the lines of `REQUESTS` to stderr, as they are, once however often this is called."""
    if not REQUESTS.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        REQUESTS.addHandler(handler)
        REQUESTS.setLevel(logging.INFO)
        REQUESTS.propagate = False
