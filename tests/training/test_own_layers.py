"""The attack's faster form of a network leaves layers alone that it does not know."""

import torch
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm

from components.training.fusing import fuse


class Branching(nn.Module):
    """Cannot be traced, and what it computes depends on the images."""

    def forward(self, images):
        return images if images.mean() > 0 else -images


def test_a_network_with_layers_that_it_does_not_know_is_left_as_it_is():
    plain = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    assert fuse(plain) is not plain
    normed = parametrizations.weight_norm(nn.Conv2d(1, 2, 3))
    for layer in (Branching(), normed, spectral_norm(nn.Conv2d(1, 1, 3))):
        network = nn.Sequential(layer, nn.Conv2d(2 if layer is normed else 1, 2, 3)).eval()
        assert fuse(network) is network


def test_batch_norm_without_weights_and_a_convolution_that_is_used_twice_give_the_same_answers():
    torch.manual_seed(0)
    twice = nn.Conv2d(2, 2, 3, padding=1)
    first, second = nn.BatchNorm2d(2), nn.BatchNorm2d(2)
    first.running_var.fill_(3.0)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, affine=False), twice, first, twice, second).eval()
    images = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(fuse(network)(images), network(images))
