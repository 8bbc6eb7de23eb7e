"""How near is the smoothed classifier seen to answer another class? The other side of a certificate.

A certificate of class A and radius R says that no image within R of x has another class. An attack looks for one that
has, as near as it can, and what it finds bounds from above what any certificate may claim. In three steps:

1. Projected ascent of the smoothed loss, as the attack of the training climbs it, in a ball that shrinks by a
   hundredth part after each point that has another class on the step's noise, and grows after each that has not: the
   minimum-norm attack of Rony et al. 2019 (DDN), which here draws new noise in each step, so that no point is fitted to
   a few noises.
2. The candidates lie on the ray from x through the last point, clipped to [0, 1] and rounded to the grid. A bisection
   finds the nearest that counts.
3. What counts is what the exact smoothed classifier answers, on noise of its own: another class than A, of which it
   may be wrong with probability `FAILURE_PROB` at most. Where it abstains nothing has changed.

The attack knows nothing of the certificate but its class.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor, nn

from components.certification.bounds import DECIMALS
from components.certification.cohen import predicting
from components.certification.sampling import Sampler, answered
from components.certification.table import ABSTAIN
from components.training.attack import loss_gradient, norms
from components.training.draws import Draws
from components.training.smoothing import noisy_logits

LARGEST = 8.0
"""Radius of the largest ball, in sigma: twice what 100,000 samples can certify."""
SHRINK, GROW = 0.95, 1.05
"""The ball's radius after a point that has another class, and after one that has not (gamma of Rony et al. is .05)."""
OUTWARD = 1.25
"""From candidate to candidate on the ray, as long as none has another class."""
TOLERANCE = 0.01
"""Relative, where the bisection ends."""
FAILURE_PROB = 1e-6
"""Of each judgement that the class is another one."""
FIRST_LOOK = 500
"""Samples that most judgements are content with."""


@dataclass(frozen=True)
class Settings:
    """How hard the attack tries."""

    steps: int
    """Of the ascent."""
    noises: int
    """Per step."""
    n: int
    """Samples of a judgement that `FIRST_LOOK` left open."""


class Judge:
    """The exact smoothed classifier, asked about candidates near one image; no sample is used twice."""

    def __init__(
        self,
        sampler: Sampler,
        *,
        seed: int,
        index: int,
        n: int,
        before_block: Callable[[], None] = lambda: None,
    ) -> None:
        self._sampler, self._seed, self._index, self._before_block = sampler, seed, index, before_block
        self._looks = (FIRST_LOOK, n)
        self._position = 0

    def answer(self, image: Tensor) -> int:
        """The class at an image (int32 (C, H, W), in steps of the grid), or `ABSTAIN`.

        It is another than the true one with probability `FAILURE_PROB` at most, over both looks.
        """
        for n in self._looks:
            stream = self._sampler.stream(
                image, seed=self._seed, index=self._index, start=self._position, before_block=self._before_block
            )
            procedure = predicting(n=n, failure_prob=FAILURE_PROB / len(self._looks))
            answer = answered(procedure, stream.count)
            self._position = stream.position
            if answer != ABSTAIN:
                return answer
        return ABSTAIN


def attack(
    sampler: Sampler,
    classifier: nn.Module,
    image: Tensor,
    label: int,
    *,
    seed: int,
    index: int,
    settings: Settings,
    before_block: Callable[[], None] = lambda: None,
) -> Tensor | None:
    """The nearest image found, int32 (C, H, W), that has another class than `label`; None where none was found.

    Args:
        classifier: the sampler's network as `components.training.attack.eval_mode` gives it.
        image: int32 (C, H, W), in steps of the sampler's grid.
        label: the class that is certified.
        seed, index: key all noise.
        before_block: called again and again; may raise to give up.
    """
    judge = Judge(sampler, seed=seed, index=index, n=settings.n, before_block=before_block)

    def is_changed(candidate: Tensor) -> bool:
        return judge.answer(candidate) not in (ABSTAIN, label)

    if is_changed(image):
        return image
    x = (image.to(sampler.device).double() / sampler.grid).float()
    end = minimum_norm(
        classifier, x, label, sampler.sigma, seed=seed, index=index, settings=settings, before_step=before_block
    )
    step = (end - x).double().cpu()
    return nearest_on_ray(image, step, sampler.grid, is_changed, LARGEST * sampler.sigma)


def minimum_norm(
    classifier: nn.Module,
    image: Tensor,
    label: int,
    sigma: float,
    *,
    seed: int,
    index: int,
    settings: Settings,
    before_step: Callable[[], None] = lambda: None,
) -> Tensor:
    """The last point, float32 (C, H, W) in [0, 1], of an ascent that ends near the border of the class `label`.

    Args:
        image: float32 (C, H, W) in [0, 1].
    """
    images, labels = image[None], torch.tensor([label], device=image.device)
    points, radius = images, sigma
    for k in range(settings.steps):
        before_step()
        draws = Draws(seed, index, k, image.device, use="attack")
        noise = sigma * draws.normal(settings.noises, images)
        gradient = loss_gradient(classifier, points, labels, noise)
        length = norms(gradient)
        direction = torch.where(length > 0, gradient / length, unit(draws.normal(1, images)[0]))
        radius = min(LARGEST * sigma, radius * (SHRINK if has_lost(classifier, points, label, noise) else GROW))
        share = 0.5 * (1 + math.cos(math.pi * k / settings.steps))  # of the radius, in the end next to nothing
        points = (images + radius * unit(points - images + share * radius * direction)).clamp(0, 1)
    return points[0]


@torch.inference_mode()
def has_lost(classifier: nn.Module, points: Tensor, label: int, noise: Tensor) -> bool:
    """Whether another class than `label` has more of the noises (m, 1, C, H, W) around a point (1, C, H, W)."""
    votes = noisy_logits(classifier, points, noise)[:, 0].argmax(-1).bincount()
    return int(votes.argmax()) != label


def unit(vectors: Tensor) -> Tensor:
    """Vectors (B, C, H, W) at L2 norm 1; zero stays zero."""
    return vectors / norms(vectors).clamp_min(torch.finfo(vectors.dtype).tiny)


def nearest_on_ray(
    image: Tensor, step: Tensor, grid: int, is_changed: Callable[[Tensor], bool], largest: float
) -> Tensor | None:
    """The nearest image on the ray from `image` along `step` that was seen to be changed, by bisection.

    Args:
        image: int32 (C, H, W), in steps of the grid; it is not changed.
        step: float64 (C, H, W), on the scale of [0, 1].
        largest: distance on that scale beyond which nothing is tried.
    """

    def candidate(t: float) -> Tensor:
        moved = image.double() + t * grid * step
        return moved.clamp(0, grid).round().int()

    most = largest / max(float(step.norm()), 1e-12)
    near, far, found = 0.0, min(1.0, most), None
    while found is None:
        if is_changed(point := candidate(far)):
            found = point
        elif far >= most:
            return None
        else:
            near, far = far, min(far * OUTWARD, most)
    while far - near > TOLERANCE * far:
        middle = (near + far) / 2
        if is_changed(point := candidate(middle)):
            far, found = middle, point
        else:
            near = middle
    return found


def distance(image: Tensor, other: Tensor, grid: int) -> float:
    """L2 distance of two images (int32, in steps of the grid) on the scale of [0, 1], rounded up to `DECIMALS` digits.

    In integers, so exactly; the float that is given is the one nearest to those decimals.
    """
    squared = int((image.long() - other.long()).square().sum())
    scaled = squared * 10 ** (2 * DECIMALS)
    root = math.isqrt(scaled)
    root += root * root < scaled
    return float(Fraction(-(-root // grid), 10**DECIMALS))
