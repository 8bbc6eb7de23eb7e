"""The model that catrs asks: which files are taken, and what is refused in one line."""

from dataclasses import replace

import pytest
import torch

from components.data.prepared import Description
from components.methods import Catrs
from components.model import networks, weights
from components.training.targets import check, gaussian_network

CPU = torch.device("cpu")


def description(classes="abc"):
    """Of 8x8 images."""
    facts = {"source": "random", "origin": "", "train_sha256": "", "test_sha256": "", "mean": None, "std": None}
    counts = {"max_value": 16, "train_images": 9, "test_images": 3}
    return Description(classes=list(classes), image_shape=[1, 8, 8], **facts, **counts)


def asking(settings, model, **changes):
    return replace(settings, method="catrs", catrs=Catrs(targets=model, **changes))


@pytest.fixture
def saved(tmp_path):
    """A network, as a model folder and as a file of weights."""
    torch.manual_seed(3)
    network = networks.build("small_convnet", (1, 8, 8), 3)
    facts = {"precision": "float32", "image_shape": [1, 8, 8], "classes": list("abc"), "mean": None, "std": None}
    facts |= {"training_key": "", "training": {}, "data_sha256": ""}
    weights.save(network, tmp_path / "model", sigma=0.25, network="small_convnet", **facts)
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    return network


@pytest.mark.parametrize("name", ["model", "model/weights.safetensors", "weights.pt"])
def test_a_model_folder_or_a_file_of_weights_is_the_network_in_eval_mode(tmp_path, settings, saved, name):
    state = torch.get_rng_state()
    found = gaussian_network(asking(settings, name), description(), tmp_path, CPU)
    assert torch.equal(torch.get_rng_state(), state)
    images = torch.rand(4, 1, 8, 8)
    assert torch.equal(found(images), saved(images))
    assert not found.training


def test_other_methods_ask_for_none(tmp_path, settings):
    assert gaussian_network(replace(settings, catrs=Catrs(targets="x")), description(), tmp_path, CPU) is None
    check(settings, tmp_path)


def test_what_cannot_be_asked_is_refused_by_name(tmp_path, settings, saved):
    torch.save({"other": torch.zeros(3)}, tmp_path / "other.pt")
    torch.save({"other": torch.tensor(torch.nan)}, tmp_path / "nan.pt")
    cases = [
        (asking(settings, "none"), description(), rf"'none': there is no file {tmp_path}"),
        (
            asking(settings, "model", targets_sigma=0.5),
            description(),
            "'model': its model.json says sigma 0.25, and cat",
        ),
        (asking(settings, "other.pt"), description(), "'other.pt': not the weights of this network; missing"),
        (asking(settings, "nan.pt"), description(), "'nan.pt': other holds values that are not finite"),
        (asking(settings, "weights.pt"), description("abcd"), r"a model of other classes: give one of these 4"),
    ]
    for chosen, images, words in cases:
        with pytest.raises(ValueError, match=words) as refused:
            gaussian_network(chosen, images, tmp_path, CPU)
        assert str(refused.value).startswith("train.catrs.targets is ")
        assert "\n" not in str(refused.value)
