"""Classifiers that look at the last bits of their input: legitimate, and certified wrongly under float noise."""

import torch
from torch import nn


class ByPredicate(nn.Module):
    """Class 1 where a predicate holds for every value of an image, else class 0."""

    def __init__(self, predicate):
        super().__init__()
        self.predicate = predicate
        self.nothing = nn.Parameter(torch.zeros(1), requires_grad=False)  # says which device it is on

    def forward(self, images):
        score = self.predicate(images).flatten(1).all(1).float()
        return torch.stack([1 - score, score], dim=1)


def lowest_bit_network(least):
    """1x1 convolutions, ReLU and one linear layer: class 1 where at least so many values v in (-1/2, 0) are odd
    multiples of 2**-25.

    With u = -v, float32 rounds u + 1/2 to multiples of 2**-24: an odd multiple of 2**-25 moves by 2**-25, an even one
    stays. Noise n in (-1, -1/2) is a multiple of 2**-24 itself, so that x + n has the last bit of x.
    """
    layers = [
        convolution([[-1.0], [-1.0]], [0.0, -0.5]),  # u, and what it exceeds 1/2 by
        convolution([[1.0, -1.0]], [0.0]),  # u, at most 1/2
        convolution([[1.0], [1.0]], [0.5, 0.0]),  # u + 1/2 rounded, and u
        convolution([[1.0, 0.0], [0.0, 1.0]], [-0.5, 0.0]),  # u rounded, and u
        convolution([[2.0**25, -(2.0**25)], [-(2.0**25), 2.0**25]], [0.0, 0.0]),  # 1 where it was odd
    ]
    return nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU())), Summed(least))


def convolution(weights, bias):
    layer = nn.Conv2d(len(weights[0]), len(weights), 1)
    layer.weight.data = torch.tensor(weights)[..., None, None]
    layer.bias.data = torch.tensor(bias)
    return layer.requires_grad_(False)


class Summed(nn.Module):
    """The linear layer: the sum of all, against a threshold."""

    def __init__(self, least):
        super().__init__()
        self.least = least

    def forward(self, images):
        score = images.flatten(1).sum(1)
        return torch.stack([torch.full_like(score, self.least - 0.5), score], dim=1)
