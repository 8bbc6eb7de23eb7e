"""Classifiers whose smoothed version is known exactly."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from components.certification.noise import noisy_copies
from components.certification.sampling import Sampler


def four_classes(image_shape, sigma):
    """A sampler of a linear network that gives several classes to the samples of an image."""
    linear = nn.Linear(math.prod(image_shape), 4)
    nn.init.normal_(linear.weight, generator=torch.Generator().manual_seed(0))
    nn.init.zeros_(linear.bias)
    return Sampler(nn.Sequential(nn.Flatten(), linear), sigma, image_shape=image_shape, num_classes=4)


class HalfSpaces(nn.Module):
    """Class 1 where w.x + b > 0, else class 0; its smoothed version has the exact radius |w.x + b| / |w|."""

    def __init__(self, weights, bias):
        super().__init__()
        self.weights = nn.Parameter(torch.tensor(weights), requires_grad=False)
        self.bias = bias

    def forward(self, images):
        score = images.flatten(1) @ self.weights + self.bias
        return torch.stack([torch.zeros_like(score), score], dim=1)

    def distance(self, image):
        """How far the image lies inside class 1, in float64; negative where it lies in class 0."""
        weights = self.weights.double()
        return float((image.double().flatten() @ weights + self.bias) / weights.norm())


class ByNumber(nn.Module):
    """Answers to each sample of one image what a list says of it: it knows the samples by their noise.

    A label of -1 answers NaN. Samples beyond the list get label 0.
    """

    def __init__(self, labels, num_classes, image, sigma, *, seed=0, index=0):
        super().__init__()
        copies = noisy_copies(image, sigma, seed=seed, index=index, start=0, stop=len(labels)).numpy()
        self.labels = {copy.tobytes(): int(label) for copy, label in zip(copies, labels, strict=True)}
        assert len(self.labels) == len(labels), "no two samples are alike"
        self.num_classes = num_classes
        self.nothing = nn.Parameter(torch.zeros(1), requires_grad=False)  # says which device it is on

    def forward(self, images):
        labels = torch.tensor([self.labels.get(copy.tobytes(), 0) for copy in images.numpy()])
        logits = F.one_hot(labels.clamp(min=0), self.num_classes).float()
        return torch.where((labels < 0)[:, None], torch.nan, logits)


def sampler_of(network, image, *, sigma=0.5, num_classes=2, precision="float32"):
    """A sampler for images like this one."""
    return Sampler(network, sigma, image_shape=tuple(image.shape), num_classes=num_classes, precision=precision)
