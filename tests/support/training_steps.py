"""What the tests of the training methods share: one tiny training step, and how two of them are compared.

Each method is stated a second time in its test: loops over images and noises, float64, no code in common. A statement
takes the name of a mistake that it then makes, so that a test can show that it would be noticed.
"""

import copy

import torch
from torch import nn

from components.training.objectives import OBJECTIVES

NOISES, IMAGES, CLASSES, SIGMA = 3, 6, 4, 0.3


class Drawn:
    """Numbers that were drawn before; asking for more than there are is an error."""

    def __init__(self, *normals, uniform=None, uniforms=()):
        self._normals, self._uniforms = list(normals), [uniform, *reversed(list(uniforms))]

    def normal(self, num, images):
        drawn = self._normals.pop(0)
        assert drawn.shape == (num, *images.shape)
        return drawn

    def uniform(self, images, *, high):
        return high * self._uniforms.pop()


def tiny_case():
    """Network with batch norm, images that touch 0 and 1, labels of which some are right, noise."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Softplus(), nn.Flatten(), nn.Linear(48, CLASSES)
    ).double()
    with torch.no_grad():
        network[1].weight.uniform_(0.5, 2)
        network[1].running_mean.uniform_(-0.5, 0.5)
        network[1].running_var.uniform_(0.2, 2)
        network[4].weight.mul_(3)
    images = (1.4 * torch.rand(IMAGES, 1, 4, 4, dtype=torch.float64) - 0.2).clamp(0, 1)
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    noise = torch.randn(NOISES, IMAGES, 1, 4, 4, dtype=torch.float64)
    return network, images, labels, noise


def step_of(method, case, settings, draws, *, epoch=0, **more):
    """A copy of the case's network with the gradients of our loss, the loss and the logits; `more` is for methods that
    prepare something."""
    network, images, labels, _ = case
    ours = copy.deepcopy(network)
    own = getattr(settings, method, None)
    loss, logits = OBJECTIVES[method](
        ours, images, labels, sigma=SIGMA, settings=settings, epoch=epoch, draws=draws, own=own, **more
    )
    loss.backward()
    assert ours.training
    return ours, loss, logits


def step_as(statement, case, *arguments):
    """The same by a second statement of the method: the network with gradients, the loss, and what else it gives."""
    theirs = copy.deepcopy(case[0])
    given = statement(theirs, *case[1:], *arguments)
    loss, *more = given if isinstance(given, tuple) else (given,)
    loss.backward()
    return theirs, loss, *more


def assert_same_training_step(ours, loss, theirs, expected):
    """Losses, gradients and batch-norm statistics, up to the float32 that our logits are rounded to."""
    assert_same_loss_and_gradients(ours, loss, theirs, expected)
    torch.testing.assert_close(dict(ours.named_buffers()), dict(theirs.named_buffers()), rtol=1e-5, atol=1e-6)


def assert_same_loss_and_gradients(ours, loss, theirs, expected):
    torch.testing.assert_close(loss.double(), expected.double(), rtol=1e-5, atol=0)
    scale = gradients(theirs).abs().max().item()
    torch.testing.assert_close(gradients(ours), gradients(theirs), rtol=0, atol=1e-5 * scale)


def gradients(network):
    """Of all parameters, in one vector; every parameter must have one."""
    return torch.cat([parameter.grad.flatten() for parameter in network.parameters()])


def gaussian_step(case, settings):
    """The step of the Gaussian loss on every image under each of the case's noises."""
    network, images, labels, noise = case
    repeated = (network, images.repeat(len(noise), 1, 1, 1), labels.repeat(len(noise)), None)
    return step_of("gaussian", repeated, settings, Drawn(noise.flatten(0, 1)[None]))


def softmax(logits):
    powers = (logits - logits.max()).exp()
    return powers / powers.sum()


def cross_entropy(logits, label):
    return -softmax(logits)[label].log()


def into_ball(step, radius):
    return step * radius / (step.norm() + 1e-7) if step.norm() > radius else step


def logits_by_pair(network, images, noise):
    """The logits of image b under noise i, all in one forward, by (i, b)."""
    pairs = [(i, b) for i in range(len(noise)) for b in range(len(images))]
    outputs = network(torch.stack([images[b] + SIGMA * noise[i, b] for i, b in pairs]))
    return dict(zip(pairs, outputs, strict=True))


def slope_of_smoothed_loss(network, point, label, deltas):
    """Gradient of -log mean_i softmax(F(point + delta_i))[label] for one image."""
    point = point.clone().requires_grad_()
    smoothed = sum(softmax(network((point + delta)[None])[0]) for delta in deltas) / len(deltas)
    (slope,) = torch.autograd.grad(-torch.log(smoothed[label].clamp(min=1e-20)), point)
    return slope
