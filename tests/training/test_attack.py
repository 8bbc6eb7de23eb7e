"""The ascent against the closed form of a linear classifier, whose adversaries lie on a straight line."""

import pytest
import torch
from torch import nn

from components.model import networks
from components.training.attack import project, smoothed_ascent
from components.training.fusing import FusedConvolution, fuse

WEIGHTS = torch.tensor([3.0, -4.0, 0.0, 0.0])


@pytest.fixture
def linear():
    """Logits (w.x, 0): every noise gives the smoothed classifier's loss of class 0 the gradient direction -w."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        network[1].weight.copy_(torch.stack([WEIGHTS, torch.zeros(4)]))
        network[1].bias.zero_()
    return network


def ascend(network, images, label, **changes):
    noise = 0.25 * torch.randn(5, *images.shape, generator=torch.Generator().manual_seed(0))
    options = {"steps": 3, "step_size": 0.1, "radius": None} | changes
    return smoothed_ascent(network, images, torch.full((len(images),), label), noise, **options)


@pytest.mark.parametrize(("label", "sign"), [(0, -1), (1, 1)])
def test_each_step_has_the_given_length_along_the_exact_direction(linear, label, sign):
    images = torch.full((2, 1, 2, 2), 0.5)
    path = ascend(linear, images, label)
    direction = sign * (WEIGHTS / 5).view(1, 2, 2)
    assert len(path) == 4
    for t, points in enumerate(path):
        torch.testing.assert_close(points, images + t * 0.1 * direction, rtol=0, atol=1e-5)


def test_the_first_point_is_the_image_itself(linear):
    images = torch.rand(2, 1, 2, 2)
    assert torch.equal(ascend(linear, images, 0)[0], images)
    assert len(ascend(linear, images, 0, steps=0)) == 1


def test_points_stay_within_the_radius_of_the_image(linear):
    images = torch.full((2, 1, 2, 2), 0.5)
    path = ascend(linear, images, 0, radius=0.15)
    lengths = [(points - images).flatten(1).norm(dim=1).max().item() for points in path]
    assert lengths == pytest.approx([0, 0.1, 0.15, 0.15], abs=1e-5)


def test_points_are_clipped_to_pixel_range(linear):
    images = torch.tensor([0.05, 0.95, 0.5, 0.5]).view(1, 1, 2, 2)
    torch.testing.assert_close(ascend(linear, images, 0)[-1].flatten(), torch.tensor([0, 1, 0.5, 0.5]))


def test_an_image_without_gradient_stays_where_it_is(linear):
    nn.init.zeros_(linear[1].weight)
    images = torch.rand(2, 1, 2, 2)
    assert torch.equal(ascend(linear, images, 0)[-1], images)


@pytest.mark.parametrize("training", [True, False])
def test_the_network_is_left_as_it_was(training):
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 2)).train(training)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    path = ascend(network, torch.rand(3, 1, 2, 2), 0)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(module.training == training for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any(points.requires_grad for points in path)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("lenet", (1, 28, 28)),
        ("lenet", (1, 18, 21)),
        ("lenet", (3, 16, 16)),
        ("resnet20", (3, 32, 32)),
        pytest.param("resnet50", (3, 64, 64), marks=pytest.mark.medium),
    ],
)
def test_the_fused_network_is_the_same_function_with_the_same_gradient_and_follows_the_training(name, shape):
    torch.manual_seed(0)
    network = networks.build(name, shape, 10, [0.4] * shape[0], [0.2] * shape[0]).double()
    fused = fuse(network.eval())
    for _ in range(2):
        with torch.no_grad():  # another step of a training, and other statistics
            for parameter in network.parameters():
                parameter.add_(0.1 * parameter.std() * torch.randn_like(parameter))
        network.train()(torch.rand(8, *shape, dtype=torch.float64))
        network.eval()
        gradients = []
        for function in (network, fused):
            images = torch.rand(
                2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
            ).requires_grad_()
            logits = function(images)
            gradients.append((logits.detach(), *torch.autograd.grad(logits.square().sum(), images)))
        torch.testing.assert_close(*gradients)
    assert fuse(network) is fused


def test_batch_norm_and_pooled_convolutions_are_fused():
    fused = fuse(networks.build("lenet", (1, 28, 28), 10).eval())
    kinds = [type(module).__name__ for module in fused.children()]
    assert (kinds.count("PooledConvolution"), kinds.count("MaxPool2d"), kinds.count("Conv2d")) == (2, 0, 0)
    fused = fuse(networks.build("resnet20", (3, 32, 32), 10).eval())
    assert sum(node.op == "call_module" and "bn" in node.target for node in fused.graph.nodes) == 0
    assert sum(isinstance(module, FusedConvolution) for module in fused.modules()) == 21


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Conv2d(2, 3, 5), nn.MaxPool2d(2)],
        [nn.Conv2d(2, 3, 5, padding=1), nn.MaxPool2d(2), nn.ReLU()],
        [nn.Conv2d(2, 4, 5, groups=2), nn.MaxPool2d(2), nn.ReLU()],
        [nn.Conv2d(2, 3, 5), nn.MaxPool2d(3), nn.ReLU()],
        [nn.Conv2d(2, 3, 5), nn.MaxPool2d(2, ceil_mode=True), nn.ReLU()],
        [nn.Conv2d(2, 3, 5, bias=False), nn.MaxPool2d(2), nn.ReLU()],
        [nn.Conv2d(2, 3, 5), nn.ReLU(), nn.MaxPool2d(2)],
    ],
)
def test_a_row_of_layers_that_is_only_like_a_pooled_convolution_stays_the_same_function(layers):
    network = nn.Sequential(*layers).double().eval()
    images = torch.rand(3, 2, 13, 13, dtype=torch.float64, requires_grad=True)
    results = [function(images) for function in (network, fuse(network))]
    gradients = [torch.autograd.grad(result.square().sum(), images)[0] for result in results]
    torch.testing.assert_close(results[0], results[1])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_the_gradient_of_a_pooled_convolution_cannot_be_taken_twice_from_what_it_overwrote():
    fused = fuse(nn.Sequential(nn.Conv2d(1, 2, 5), nn.MaxPool2d(2), nn.ReLU()).eval())
    images = torch.rand(1, 1, 8, 8, requires_grad=True)
    total = fused(images).sum()
    torch.autograd.grad(total, images, retain_graph=True)
    with pytest.raises(RuntimeError, match="inplace"):
        torch.autograd.grad(total, images)


def test_only_longer_steps_are_shortened_to_the_radius():
    steps = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]]).view(3, 1, 1, 2)
    projected = project(steps, 1.0).flatten(1)
    torch.testing.assert_close(projected, torch.tensor([[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]]))
    assert torch.equal(project(steps, 0.0), torch.zeros_like(steps))
