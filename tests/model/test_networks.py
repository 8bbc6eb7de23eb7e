"""Networks by name, normalisation inside them, and weights as files."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from components.model import networks, weights
from components.tools.files import write_json


@pytest.mark.parametrize("name", networks.NETWORKS)
@pytest.mark.parametrize("shape", [(1, 16, 16), (1, 28, 28), (3, 32, 32), (2, 16, 24), (4, 44, 32), (7, 32, 20)])
def test_every_network_gives_logits_per_image_and_passes_gradients(name, shape):
    network = networks.build(name, shape, 7)
    logits = network(torch.rand(2, *shape))
    assert logits.shape == (2, 7)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_initial_weights_follow_torch_s_seed(name):
    torch.manual_seed(3)
    first = networks.build(name, (1, 16, 16), 10).state_dict()
    torch.manual_seed(3)
    second = networks.build(name, (1, 16, 16), 10).state_dict()
    third = networks.build(name, (1, 16, 16), 10).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not all(torch.equal(first[key], third[key]) for key in first)


def test_lenet_is_the_published_one():
    """5x5x20, 5x5x50, 800-500, 500-10, each with bias."""
    network = networks.lenet((1, 28, 28), 10)
    weights = [tuple(p.shape) for p in network.parameters() if p.dim() > 1]
    assert weights == [(20, 1, 5, 5), (50, 20, 5, 5), (500, 800), (10, 500)]
    assert sum(p.numel() for p in network.parameters()) == 431_080
    assert [type(layer) for layer in network if not list(layer.parameters())] == [
        nn.MaxPool2d,
        nn.ReLU,
        nn.MaxPool2d,
        nn.ReLU,
        nn.Flatten,
        nn.ReLU,
    ]


@pytest.mark.parametrize(("name", "layers", "parameters"), [("resnet20", 20, 272_474), ("resnet110", 110, 1_730_714)])
def test_the_cifar_networks_are_the_published_ones(name, layers, parameters):
    """As many weighted layers as the name says (shortcuts aside), 1x1 convolutions on two shortcuts, conv init."""
    torch.manual_seed(0)
    network = networks.build(name, (3, 32, 32), 10)
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    shortcuts = [conv for conv in convolutions if conv.kernel_size == (1, 1)]
    assert len(shortcuts) == 2
    assert len(convolutions) - 2 + 1 == layers
    assert sum(p.numel() for p in network.parameters()) == parameters
    last = convolutions[-1]
    assert last.weight.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)


def test_resnet50_is_torchvision_s():
    network = networks.build("resnet50", (3, 64, 64), 1000)
    assert sum(p.numel() for p in network.parameters()) == 25_557_032


def test_normalisation_is_the_first_layer_and_is_saved_with_the_weights():
    mean, std = [0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]
    torch.manual_seed(0)
    network = networks.build("lenet", (3, 32, 32), 10, mean, std)
    torch.manual_seed(0)
    bare = networks.build("lenet", (3, 32, 32), 10)
    images = torch.rand(4, 3, 32, 32)
    normalised = (images - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(network(images), bare(normalised))
    saved = network.state_dict()
    assert saved["0.mean"].flatten().tolist() == pytest.approx(mean)
    assert saved["0.std"].flatten().tolist() == pytest.approx(std)
    assert "0.mean" not in dict(network.named_parameters())


# --- weights as files --------------------------------------------------------------------------------------------


def save(network, folder, **changes):
    facts = {
        "sigma": 0.5,
        "network": "small_convnet",
        "precision": "float32",
        "image_shape": [1, 16, 16],
        "classes": ["zero", "one", "two"],
        "mean": [0.5],
        "std": [0.25],
        "training_key": "key",
        "training": {"epochs": 1},
        "data_sha256": "data",
    }
    return weights.save(network, folder, **(facts | changes))


@pytest.fixture
def network():
    return networks.build("small_convnet", (1, 16, 16), 3, [0.5], [0.25])


def test_a_saved_network_comes_back_with_its_card_in_eval_mode(network, tmp_path):
    card = save(network, tmp_path)
    loaded, loaded_card = weights.load(tmp_path)
    images = torch.rand(2, 1, 16, 16)
    assert torch.equal(loaded(images), network(images))
    assert loaded_card == card
    assert not loaded.training


def test_the_same_weights_are_saved_as_the_same_bytes(network, tmp_path):
    first = save(network, tmp_path / "a")
    assert save(network, tmp_path / "b") == first
    nn.init.zeros_(next(network.parameters()))
    assert save(network, tmp_path / "c").weights_sha256 != first.weights_sha256


def test_weights_that_the_card_was_not_written_for_are_refused(network, tmp_path):
    card = save(network, tmp_path)
    write_json(tmp_path / "model.json", vars(replace(card, weights_sha256="0" * 64)))
    with pytest.raises(ValueError, match=r"not the file that model\.json was written for"):
        weights.load(tmp_path)


def test_a_missing_file_is_refused(network, tmp_path):
    with pytest.raises(ValueError, match=r"model\.json cannot be read"):
        weights.load(tmp_path)
    save(network, tmp_path)
    (tmp_path / weights.WEIGHTS).unlink()
    with pytest.raises(ValueError, match="is missing"):
        weights.load(tmp_path)
