"""The example of denoised smoothing: a network like any other, whose denoiser removes noise."""

import pytest
import torch

from components.model import networks
from components.model.pretrained import fit_into, read
from examples.denoised import build, train_classifier, train_denoiser


@pytest.fixture(scope="module")
def images():
    """Bright left or right halves."""
    labels = torch.arange(512) % 2
    images = torch.zeros(512, 1, 8, 8)
    images[labels == 0, :, :, :4] = 1.0
    images[labels == 1, :, :, 4:] = 1.0
    return images, labels


@pytest.mark.medium
def test_its_denoiser_removes_most_of_the_noise_and_leaves_the_classifier_as_it_was(images):
    pixels, labels = images
    torch.manual_seed(0)
    network = build((1, 8, 8), 2)
    train_classifier(network.classifier, pixels, labels, epochs=10)
    before = {name: value.clone() for name, value in network.classifier.state_dict().items()}
    assert train_denoiser(network, pixels, sigma=0.5, epochs=40) < 0.5 * 0.5**2
    assert all(torch.equal(value, before[name]) for name, value in network.classifier.state_dict().items())
    answers = network(pixels + 0.5 * torch.randn_like(pixels)).argmax(-1)
    assert (answers == labels).float().mean() > 0.9


def test_its_weights_are_those_of_a_network_and_its_classifier_s_of_a_plain_one(tmp_path):
    torch.manual_seed(0)
    network = build((1, 16, 16), 10)
    torch.save(network.state_dict(), tmp_path / "both.pt")
    torch.save(network.classifier.state_dict(), tmp_path / "plain.pt")
    other, plain = build((1, 16, 16), 10), networks.build("small_convnet", (1, 16, 16), 10)
    fit_into(other, read("both.pt", "examples.denoised:build", tmp_path), may_replace_head=False)
    fit_into(plain, read("plain.pt", "small_convnet", tmp_path), may_replace_head=False)
    noisy = torch.rand(3, 1, 16, 16)
    assert torch.equal(other(noisy), network(noisy))
    assert torch.equal(plain(noisy), network.classifier(noisy))
