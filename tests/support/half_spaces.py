"""Classifiers whose smoothed version is known exactly."""

import math

import numpy as np
import torch
from scipy.special import ndtri
from torch import nn
from torch.nn import functional as F

from components.certification.noise import noisy_copies
from components.certification.noise.discrete_normal import discrete_normal
from components.certification.sampling import Sampler

GRID = 256
"""Steps from 0 to 1 of the grid that test images lie on: a power of two, so that k / GRID is a float."""


def steps(*values, shape=None):
    """Values in [0, 1], multiples of 1 / GRID, as an image: int32 of `shape`, or (1, 1, N)."""
    scaled = torch.tensor(values, dtype=torch.float64) * GRID
    assert torch.equal(scaled, scaled.round())
    return scaled.int().view(shape or (1, 1, -1))


def random_images(*shape, seed=0):
    """int32, uniform on the grid."""
    return torch.randint(GRID + 1, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.int32)


def four_classes(image_shape, sigma):
    """A sampler of a linear network that gives several classes to the samples of an image."""
    linear = nn.Linear(math.prod(image_shape), 4)
    nn.init.normal_(linear.weight, generator=torch.Generator().manual_seed(0))
    nn.init.zeros_(linear.bias)
    network = nn.Sequential(nn.Flatten(), linear)
    return Sampler(network, sigma, grid=GRID, image_shape=image_shape, num_classes=4)


class HalfSpaces(nn.Module):
    """Class 1 where w.x + b > 0, else class 0, of as many of an image's values as there are weights.

    But for the grid, the smoothed version has the exact radius |w.x + b| / |w|.
    """

    def __init__(self, weights, bias):
        super().__init__()
        self.weights = nn.Parameter(torch.tensor(weights), requires_grad=False)
        self.bias = bias

    def forward(self, images):
        score = images.flatten(1)[:, : len(self.weights)] @ self.weights + self.bias
        return torch.stack([torch.zeros_like(score), score], dim=1)

    def distance(self, image):
        """How far the image (in steps) lies inside class 1, in float64; negative where it lies in class 0."""
        weights = self.weights.double()
        values = image.double().flatten()[: len(weights)] / GRID
        return float((values @ weights + self.bias) / weights.norm())

    def radius(self, image, sigma):
        """Of two weights: sigma Phi^-1(p) with the probability p of class 1 around the image under the noise on the
        grid, summed over all that it can be. No true certificate of class 1 claims more."""
        (w, v), (x, y) = self.weights.double().tolist(), image.flatten()[:2].tolist()
        normal = discrete_normal(sigma, GRID)
        probabilities = np.diff(normal.edges) / 2.0**64
        noise = np.arange(-normal.reach, normal.reach + 1)
        border = -((x + noise) * w + self.bias * GRID) / v - y  # class 1 where the second value's noise is beyond
        beyond = np.append(np.cumsum(probabilities[::-1])[::-1], 0.0)
        share = beyond[np.clip(np.floor(border).astype(int) + 1 + normal.reach, 0, len(noise))]
        return sigma * float(ndtri(probabilities @ (share if v > 0 else 1 - share)))


class ByNumber(nn.Module):
    """Answers to each sample of one image what a list says of it: it knows the samples by their noise.

    A label of -1 answers NaN. Samples beyond the list get label 0.
    """

    def __init__(self, labels, num_classes, image, sigma, *, seed=0, index=0):
        super().__init__()
        normal = discrete_normal(sigma, GRID)
        copies = noisy_copies(image, normal, seed=seed, index=index, start=0, stop=len(labels))[0].numpy()
        self.labels = {copy.tobytes(): int(label) for copy, label in zip(copies, labels, strict=True)}
        assert len(self.labels) == len(labels), "no two samples are alike"
        self.num_classes = num_classes
        self.nothing = nn.Parameter(torch.zeros(1), requires_grad=False)  # says which device it is on

    def forward(self, images):
        labels = torch.tensor([self.labels.get(copy.tobytes(), 0) for copy in images.numpy()])
        logits = F.one_hot(labels.clamp(min=0), self.num_classes).float()
        return torch.where((labels < 0)[:, None], torch.nan, logits)


def sampler_of(network, image, *, sigma=0.5, num_classes=2, **options):
    """A sampler for images like this one."""
    shape = tuple(image.shape)
    return Sampler(network, sigma, grid=GRID, image_shape=shape, num_classes=num_classes, **options)
