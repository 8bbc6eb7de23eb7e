"""Networks that are not ours: tried before they are trained, and stored with their code."""

import importlib.util
import shutil

import pytest
import torch

from components.model import networks, weights
from components.own_code import OwnCode
from tests.support.own_code import LINEAR, project, write

__all__ = ["project"]
SHAPE = (1, 8, 8)
FACTS = {
    "sigma": 0.5,
    "precision": "float32",
    "image_shape": [1, 8, 8],
    "classes": ["a", "b", "c"],
    "mean": [0.5],
    "std": [0.25],
    "training_key": "key",
    "training": {},
    "data_sha256": "data",
}
NETWORK = "nn.Sequential(nn.Flatten(), {}, nn.Linear(64, k))"
REFUSED = {
    "no module": ("nowhere:build", "", "there is no module nowhere: install it, or put nowhere.py into"),
    "no function": ("net:make", "build = len", "net has no make"),
    "no such thing installed": ("json:build", "", "json has no build"),
    "not a function": ("net:build", "build = 3", "is of type int: must be a function"),
    "other arguments": ("net:build", "def build(s): pass", r"must take the arguments \(image_shape, num_classes\)"),
    "error in it": ("net:build", "def build(s, k):\n    return 1 / 0", r"ZeroDivisionError: .* \(net.py:4\)"),
    "error on import": ("net:build", "import nothing_there", r"ModuleNotFoundError: .* \(net.py:3\)"),
    "not a network": ("net:build", "def build(s, k): return s", "gives a tuple, must give a torch.nn.Module"),
    "image size": (
        "net:build",
        "def build(s, k): return nn.Linear(9, k)",
        "does not take images of 1x8x8: RuntimeError",
    ),
    "classes": ("net:build", f"def build(s, k):\n k = 5\n return {NETWORK}", r"shape \(2, 5\): must be .* \(2, 3\)"),
    "not one answer per image": ("net:build", "def build(s, k): return nn.Identity()", r"shape \(2, 1, 8, 8\)"),
    "several answers": (
        "net:build",
        "class N(nn.Module):\n def forward(self, x): return x, x\ndef build(s, k): return N()",
        "answers 2 images with a tuple",
    ),
    "random in eval mode": (
        "net:build",
        "class N(nn.Dropout):\n def forward(self, x): return nn.functional.dropout(x)\n"
        f"def build(s, k): return {NETWORK.format('N()')}",
        "answers the same images differently in eval mode",
    ),
    "batch statistics in eval mode": (
        "net:build",
        f"def build(s, k): return {NETWORK.format('nn.BatchNorm1d(64, track_running_stats=False)')}",
        "depends on the other images of the batch in eval mode",
    ),
    "weights from elsewhere": (
        "net:build",
        f"import numpy\ndef build(s, k):\n n = {NETWORK}\n n[2].bias.data[:] = numpy.random.rand()\n return n",
        "first weights do not follow torch's seed",
    ),
    "unknown to torchvision": ("torchvision:resnet19", "", "no classification model resnet19: perhaps resnet"),
}


@pytest.mark.parametrize(("name", "source", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_trained_and_certified_is_refused_in_one_line(project, name, source, words):
    write(project, net="from torch import nn\nimport torch\n" + source.replace("{}", "nn.ReLU()"))
    state = torch.get_rng_state()
    with pytest.raises(ValueError, match=words) as refused:
        networks.check_fit(name, SHAPE, 3)
    assert str(refused.value).startswith(f"train.network is {name!r}: ")
    assert "\n" not in str(refused.value)
    assert torch.equal(torch.get_rng_state(), state), "asking draws no random numbers"


def test_a_good_one_passes_also_while_the_classes_are_not_known_and_draws_nothing(project):
    write(project, net=LINEAR)
    state = torch.get_rng_state()
    networks.check_fit("net:build", SHAPE, 3)
    networks.check_fit("net:build", SHAPE)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_torchvision_s_take_any_number_of_channels(channels):
    network = networks.build("torchvision:resnet18", (channels, 32, 32), 7).eval()
    assert network(torch.zeros(1, channels, 32, 32)).shape == (1, 7)
    assert list(networks.code_of("torchvision:resnet18").packages) == ["torchvision"]


def test_timm_s_are_an_extra():
    if importlib.util.find_spec("timm") is None:
        with pytest.raises(ValueError, match="'timm:resnet10t': there is no module timm: install it"):
            networks.check_fit("timm:resnet10t", (4, 32, 32), 7)
        return
    networks.check_fit("timm:resnet10t", (4, 32, 32), 7)
    with pytest.raises(ValueError, match="has no model resnet10x: perhaps resnet10t"):
        networks.check_fit("timm:resnet10x", (4, 32, 32), 7)


# --- as files ----------------------------------------------------------------------------------------------------


def saved(project, source=LINEAR):
    """A model of the project's network, in the folder `model`, and answers of the network."""
    write(project, net="from helper import build", helper=source)
    torch.manual_seed(0)
    network = networks.build("net:build", SHAPE, 3, [0.5], [0.25])
    weights.save(network, project / "model", network="net:build", **FACTS)
    images = torch.rand(2, *SHAPE)
    return images, network.eval()(images)


def test_a_saved_one_is_loaded_from_its_folder_alone(project, tmp_path_factory, monkeypatch):
    images, answers = saved(project)
    folder = shutil.move(project / "model", tmp_path_factory.mktemp("elsewhere") / "model")
    write(project, net="1 / 0", helper="1 / 0")
    monkeypatch.chdir(folder.parent)
    network, card = weights.load(folder)
    assert torch.equal(network(images), answers)
    assert list(card.code["files"]) == ["helper.py", "net.py"]
    assert set(card.content) == {"weights_sha256", "network_code_sha256"}


@pytest.mark.parametrize("harm", ["changed", "missing"])
def test_other_code_than_the_card_s_is_not_run(project, harm):
    saved(project)
    path = project / "model/code/helper.py"
    path.unlink()
    if harm == "changed":
        path.write_text("raise SystemExit('it ran')")
    with pytest.raises(
        ValueError, match=r"code/helper\.py is missing or not the file that model\.json was written for"
    ):
        weights.load(project / "model")


def test_a_package_that_is_missing_where_it_is_loaded_is_named():
    code = OwnCode("net:build", {"net.py": b"import gone_by_now"}, {})
    with pytest.raises(ValueError, match=r"network 'net:build' cannot be built .*No module named 'gone_by_now'"):
        networks.build("net:build", SHAPE, 3, code=code)


def test_ours_are_stored_without_code(tmp_path):
    card = weights.save(networks.build("small_convnet", SHAPE, 3), tmp_path, network="small_convnet", **FACTS)
    assert card.code == {}
    assert set(card.content) == {"weights_sha256"}
    assert {path.name for path in tmp_path.iterdir()} == {"model.json", "weights.safetensors"}
