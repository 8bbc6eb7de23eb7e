"""A training of a moment, of the network and the data of tests/training/conftest.py."""

import torch

from components.training.fit import Training, fit
from components.training.optimizer import make_optimizer


def begin(network, settings):
    return Training(network, make_optimizer(network, settings))


def steps_of(training, data, settings, seed=0, **options):
    """The steps of a training that continues in place."""
    return fit(training, *data, max_value=16, sigma=0.5, settings=settings, seed=seed, **options)


def same_weights(one, other):
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())
