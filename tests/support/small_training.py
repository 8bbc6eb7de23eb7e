"""A training of a moment, of the network and the data of tests/training/conftest.py."""

import torch

from components.training.fit import fit
from components.training.optimizer import make_optimizer
from components.training.ranks import Ranks
from components.training.state import Training
from components.training.validation import Validation


def begin(network, settings, validation=None):
    return Training(network, make_optimizer(network, settings), validation)


def validation_on(data, settings, sha256="", ranks=None):
    """Data like those of the training, as a validation split."""
    return Validation(*data, 16, 0.5, settings, seed=0, sha256=sha256, ranks=ranks or Ranks(), batch=8)


def steps_of(training, data, settings, seed=0, **options):
    """The steps of a training that continues in place."""
    return fit(training, *data, max_value=16, sigma=0.5, settings=settings, seed=seed, **options)


def same_weights(one, other):
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())
