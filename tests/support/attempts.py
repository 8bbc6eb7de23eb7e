"""Many certifications of one image, each with noise of its own, on classifiers whose true radius is known."""

import numpy as np
import torch
from scipy import stats

from components.certification.table import ABSTAIN
from tests.support.half_spaces import HalfSpaces, sampler_of, steps

IMAGE = steps(0.5, 0.5)
MARGIN = 1e-5
"""Of sigma: how far the truth lies below what the procedure can give. Far more than the rounding of a score."""


def too_many(failures, attempts, failure_prob):
    """Whether so many failures refute that each happens with `failure_prob` at most."""
    return stats.binomtest(int(failures), attempts, failure_prob, alternative="greater").pvalue < 1e-6


def failures(procedure, sampler, truth, attempts, **options):
    """How many of the attempts certify a class other than 1, or a radius above the truth."""
    certificates = (procedure(sampler, IMAGE, seed=11, index=i, **options) for i in range(attempts))
    return sum(c.predict != ABSTAIN and (c.predict != 1 or c.radius > truth) for c in certificates)


def at(truth, sigma, direction=(0.6, -0.8124)):
    """A sampler of a linear classifier that has IMAGE inside its class 1, and the exact radius there, near `truth`.

    The direction is such that the border meets hardly a point of the grid.
    """
    direction = torch.tensor(direction, dtype=torch.float64)
    network = HalfSpaces(direction.tolist(), truth * float(direction.norm()) - 0.5 * float(direction.sum()))
    return sampler_of(network, IMAGE, sigma=sigma), max(network.radius(IMAGE, sigma), 0.0)


class Attempts:
    """The samples of many attempts, computed at once for speed: to a procedure it looks like a sampler."""

    def __init__(self, classes, sigma):
        """Args:
        classes: of each sample, int (attempts, samples); attempt i is that of image i.
        """
        self.classes, self.sigma = classes, sigma

    def stream(self, image, *, seed, index, start=0):
        return Attempt(self.classes[index, start:])


class Attempt:
    def __init__(self, classes):
        self.rest = classes

    def count(self, num):
        assert num <= len(self.rest)
        now, self.rest = self.rest[:num], self.rest[num:]
        return np.bincount(now, minlength=2)


def sampled(sampler, attempts, samples, image=IMAGE):
    """Attempts with real noise and the real network."""
    sampler.block = TOGETHER * samples
    blocks = [sampler.predictions(image, 11, index, 0).to(torch.uint8) for index in range(-(-attempts // TOGETHER))]
    return Attempts(torch.cat(blocks).view(-1, samples)[:attempts].numpy(), sampler.sigma)


TOGETHER = 20
"""Attempts that share a forward and the number of an image."""


class Drawn:
    """Counts from the binomial distribution itself: each sample hits class 1 with probability p, else class 0."""

    def __init__(self, p, sigma):
        self.p, self.sigma, self.rng = p, sigma, np.random.default_rng(0)

    def stream(self, image, *, seed, index, start=0):
        return self

    def count(self, num):
        hits = self.rng.binomial(num, self.p)
        return np.array([num - hits, hits])
