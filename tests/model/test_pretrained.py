"""Weights of other programs: read without running code, fitted whole or not at all."""

import copy
import pickle
import re
import urllib.request
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from components.model import networks, weights
from components.model.pretrained import bare_names, fit_into, last_layer, read
from components.model.weights_files import identity
from tests.support.published_checkpoints import (
    CIFAR10,
    IMAGENET,
    CifarResNet,
    LeNet,
    NormalizeLayer,
    save_checkpoint,
    trained_a_little,
)

LENET = ("lenet", (1, 28, 28), 10)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def a_network(name="lenet", shape=(1, 28, 28), classes=10, mean=None, std=None):
    return networks.build(name, shape, classes, mean, std)


def fitted(path, network, **more):
    """The network with the file's weights, in eval mode."""
    found = read(str(path), more.pop("name", "lenet"), path.parent)
    fit_into(network, found, may_replace_head=more.pop("may_replace_head", False))
    return network.eval()


def same_logits(ours, theirs, shape):
    """Whether two networks agree in double precision, where another order of summation is no more than 1e-10."""
    images = (torch.rand(8, *shape) + 0.5 * torch.randn(8, *shape)).double()
    with torch.no_grad():
        ours, theirs = copy.deepcopy(ours).double().eval(), copy.deepcopy(theirs).double().eval()
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-10, atol=1e-10)


def save_safetensors(state, path):
    save_file({name: value.contiguous() for name, value in state.items()}, path)


def refusal(path, network, **more):
    """The message with which a file is refused; the network is as it was."""
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(ValueError) as error:  # noqa: PT011
        fitted(path, network, **more)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert "\n" not in str(error.value)
    return str(error.value)


# --- published forms ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrapped", ["as saved", "in DataParallel", "without normalisation"])
def test_a_checkpoint_of_cohen_s_cifar_resnet_gives_its_logits(tmp_path, wrapped):
    theirs = trained_a_little(nn.Sequential(NormalizeLayer(*CIFAR10), CifarResNet(3)), torch.rand(4, 3, 32, 32))
    saved = {"as saved": theirs, "in DataParallel": nn.DataParallel(theirs), "without normalisation": theirs[1]}[
        wrapped
    ]
    path = save_checkpoint(saved, "cifar_resnet20", tmp_path / "checkpoint.pth.tar")
    ours = fitted(path, a_network("resnet20", (3, 32, 32), 10, *CIFAR10), name="resnet20")
    for own, other in zip(ours[1].state_dict().values(), theirs[1].state_dict().values(), strict=True):
        assert torch.equal(own, other)
    same_logits(ours, theirs, (3, 32, 32))


@pytest.mark.medium
def test_a_checkpoint_of_resnet110_has_the_order_of_ours(tmp_path):
    theirs = nn.Sequential(NormalizeLayer(*CIFAR10), CifarResNet(18))
    path = save_checkpoint(theirs, "cifar_resnet110", tmp_path / "checkpoint.pth.tar")
    ours = fitted(path, a_network("resnet110", (3, 32, 32), 10, *CIFAR10), name="resnet110")
    same_logits(ours, theirs, (3, 32, 32))


@pytest.mark.medium
def test_a_checkpoint_of_an_imagenet_resnet50_gives_its_logits(tmp_path):
    from torchvision.models import resnet50

    theirs = nn.Sequential(NormalizeLayer(*IMAGENET), nn.DataParallel(resnet50(weights=None)))
    path = save_checkpoint(theirs, "resnet50", tmp_path / "checkpoint.pth.tar")
    assert "1.module.conv1.weight" in torch.load(path, weights_only=True)["state_dict"]
    ours = fitted(path, a_network("resnet50", (3, 64, 64), 1000, *IMAGENET), name="resnet50")
    same_logits(ours, theirs, (3, 64, 64))


def test_a_checkpoint_of_the_mnist_lenet_gives_its_logits(tmp_path):
    theirs = trained_a_little(nn.Sequential(nn.Identity(), LeNet()), torch.rand(4, 1, 28, 28))
    path = save_checkpoint(theirs, "lenet", tmp_path / "checkpoint.pth.tar")
    same_logits(fitted(path, a_network()), theirs, (1, 28, 28))


def test_salman_s_input_centre_layer_is_a_std_of_one(tmp_path):
    theirs = nn.Sequential(NormalizeLayer(CIFAR10[0], [1.0, 1.0, 1.0]), CifarResNet(3))
    path = save_checkpoint(theirs, "cifar_resnet20", tmp_path / "checkpoint.pth.tar")
    ours = a_network("resnet20", (3, 32, 32), 10, CIFAR10[0], [1.0, 1.0, 1.0])
    same_logits(fitted(path, ours, name="resnet20"), theirs, (3, 32, 32))


# --- other forms -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("section", [None, "state_dict", "model", "network"])
@pytest.mark.parametrize("prefix", ["", "module.", "net._orig_mod."])
def test_a_torch_file_is_a_state_dict_or_has_one_in_a_section(tmp_path, section, prefix):
    theirs = a_network()
    state = OrderedDict((prefix + name, tensor) for name, tensor in theirs.state_dict().items())
    torch.save({section: state, "epoch": 3} if section else state, tmp_path / "w.pt")
    same_logits(fitted(tmp_path / "w.pt", a_network()), theirs, (1, 28, 28))


def test_safetensors_are_matched_by_name_alone(tmp_path):
    theirs = a_network()
    save_safetensors(theirs.state_dict(), tmp_path / "w.safetensors")
    same_logits(fitted(tmp_path / "w.safetensors", a_network()), theirs, (1, 28, 28))
    save_safetensors(LeNet().state_dict(), tmp_path / "other.safetensors")
    said = refusal(tmp_path / "other.safetensors", a_network())
    assert "not the weights of this network; missing: 0.weight, 0.bias, 3.weight, ... (8 in all); left over: " in said


def save_model(folder, mean=None, std=None):
    network = a_network("lenet", (1, 28, 28), 10, mean, std)
    facts = {"sigma": 0.5, "network": "lenet", "precision": "float32", "image_shape": [1, 28, 28], "mean": mean}
    facts |= {"classes": list("0123456789"), "std": std, "training_key": "", "training": {}, "data_sha256": ""}
    weights.save(network, folder, **facts)
    return network


@pytest.mark.parametrize("normalised", [(None, None), ([0.25], [0.5])])
def test_a_model_folder_of_this_project_is_read_with_its_normalisation(tmp_path, normalised):
    theirs = save_model(tmp_path / "model", *normalised)
    same_logits(fitted(tmp_path / "model", a_network(*LENET, *normalised)), theirs, (1, 28, 28))
    said = refusal(tmp_path / "model", a_network(*LENET, [0.1], [0.2]))
    mean, std = normalised if normalised[0] else ([0.0], [1.0])
    assert f"trained with the normalisation mean {mean} and std {std}, which is not in use: set train.mean" in said


@pytest.mark.parametrize("names", [("0.means", "0.sds", "1."), ("normalize.mean", "normalize.std", "model.")])
def test_a_normalisation_in_the_file_must_be_the_one_in_use(tmp_path, names):
    mean, std, prefix = names
    theirs = CifarResNet(3)
    state = {mean: torch.tensor(CIFAR10[0]), std: torch.tensor(CIFAR10[1]).view(-1, 1, 1)}
    torch.save(state | {prefix + name: value for name, value in theirs.state_dict().items()}, tmp_path / "w.pt")
    ours = fitted(tmp_path / "w.pt", a_network("resnet20", (3, 32, 32), 10, *CIFAR10), name="resnet20")
    same_logits(ours[1], theirs, (3, 32, 32))
    for normalised in (None, None), IMAGENET, ([0.5], [0.5]):
        said = refusal(tmp_path / "w.pt", a_network("resnet20", (3, 32, 32), 10, *normalised), name="resnet20")
        assert "set train.mean: [0.4914, 0.4822, 0.4465] and train.std: [0.2023, 0.1994, 0.201]" in said


def test_a_network_with_constants_of_its_own_keeps_them(tmp_path):
    network = nn.Sequential(OrderedDict(first=networks.Normalize([0.1], [0.2]), second=nn.Conv2d(1, 2, 3)))
    torch.save(network.state_dict(), tmp_path / "w.pt")
    other = nn.Sequential(OrderedDict(first=nn.Sequential(networks.Normalize([0.5], [0.5])), second=nn.Conv2d(1, 2, 3)))
    torch.save(other.state_dict(), tmp_path / "w.pt")
    target = nn.Sequential(
        OrderedDict(first=nn.Sequential(networks.Normalize([0.1], [0.2])), second=nn.Conv2d(1, 2, 3))
    )
    fitted(tmp_path / "w.pt", target)
    assert target.first[0].mean.item() == 0.5


def test_files_of_old_versions_of_torch_count_no_batches(tmp_path):
    theirs = trained_a_little(CifarResNet(3), torch.rand(4, 3, 32, 32))
    state = {name: value for name, value in theirs.state_dict().items() if not name.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "w.pt")
    ours = fitted(tmp_path / "w.pt", a_network("resnet20", (3, 32, 32), 10), name="resnet20")
    same_logits(ours, theirs, (3, 32, 32))


def test_weights_in_half_precision_are_taken_as_they_are(tmp_path):
    theirs = a_network()
    torch.save(theirs.half().state_dict(), tmp_path / "w.pt")
    same_logits(fitted(tmp_path / "w.pt", a_network()), theirs.float(), (1, 28, 28))


# --- a last layer of another shape -------------------------------------------------------------------------------


def test_a_last_layer_of_another_shape_stays_new_and_is_named(tmp_path):
    theirs, ours = LeNet(26), a_network()
    fresh = ours[-1].weight.clone()
    torch.save(theirs.state_dict(), tmp_path / "w.pt")
    said = fit_into(ours, read("w.pt", "lenet", tmp_path), may_replace_head=True)
    assert said.endswith(
        "weights of w.pt, matched by the order of their definition; the last layer, 9, is new: its shape is another "
        "one in the file"
    )
    assert torch.equal(ours[-1].weight, fresh)
    assert torch.equal(ours[0].weight, theirs.conv1.weight)


def test_without_training_no_layer_may_be_new(tmp_path):
    torch.save(LeNet(26).state_dict(), tmp_path / "w.pt")
    said = refusal(tmp_path / "w.pt", a_network())
    assert "the last layer, 9, has 26x500 instead of 10x500, and with train.epochs 0 nothing may be left" in said


# --- what is refused ---------------------------------------------------------------------------------------------


def test_weights_of_another_network_are_refused_with_the_first_names(tmp_path):
    torch.save(CifarResNet(3).state_dict(), tmp_path / "w.pt")
    said = refusal(tmp_path / "w.pt", a_network(), may_replace_head=True)
    assert said.startswith("train.weights is ")
    assert "missing: 0.weight, 0.bias, 3.weight, ... (8 in all); left over: conv1.weight, bn1.weight, bn1.bias" in said


def test_a_layer_that_is_missing_or_left_over_is_named(tmp_path):
    state = a_network().state_dict()
    torch.save({name: value for name, value in state.items() if name != "3.bias"}, tmp_path / "less.pt")
    assert refusal(tmp_path / "less.pt", a_network()).endswith("not the weights of this network; missing: 3.bias")
    torch.save(state | {"ema.weight": torch.zeros(2)}, tmp_path / "more.pt")
    assert refusal(tmp_path / "more.pt", a_network()).endswith("left over: ema.weight")


def test_an_inner_layer_of_another_shape_is_named(tmp_path):
    torch.save(a_network(shape=(1, 32, 32)).state_dict(), tmp_path / "w.pt")
    said = refusal(tmp_path / "w.pt", a_network(), may_replace_head=True)
    assert said.endswith("weights of other shapes: 7.weight 500x1250 instead of 500x800")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
    state = a_network().state_dict()
    state["7.bias"][3] = value
    torch.save(state, tmp_path / "w.pt")
    assert refusal(tmp_path / "w.pt", a_network()).endswith("7.bias holds values that are not finite")


class RunsCode:
    def __reduce__(self):
        return print, ("code of the file was run",)


def test_a_file_that_would_run_code_is_refused_and_runs_none(tmp_path, capsys):
    torch.save({"state_dict": RunsCode()}, tmp_path / "w.pt")
    torch.save(a_network(), tmp_path / "whole.pt")
    for name in ("w.pt", "whole.pt"):
        said = refusal(tmp_path / name, a_network())
        assert f"{name} holds Python objects beside tensors, which could run code when they are loaded: save" in said
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(RunsCode()))
    assert "w.pkl is neither a torch file nor named .safetensors" in refusal(tmp_path / "w.pkl", a_network())
    assert capsys.readouterr().out == ""


CONTENTS = {
    "empty": b"",
    "text": b"version https://git-lfs.github.com/spec/v1\n",
    "a page": b"<!DOCTYPE html><html>not found</html>",
    "zeros": bytes(1000),
    "a torn zip": b"PK\x03\x04" + bytes(100),
}


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_what_is_no_file_of_weights_is_refused_in_one_line(tmp_path, content, suffix):
    path = tmp_path / f"w.{suffix}"
    path.write_bytes(content)
    assert re.search(rf"w\.{suffix} is (torn|neither a torch|not a whole)", refusal(path, a_network()))


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_a_torn_file_is_refused_in_one_line(tmp_path, suffix):
    (torch.save if suffix == "pt" else save_safetensors)(a_network().state_dict(), tmp_path / f"w.{suffix}")
    path = tmp_path / f"w.{suffix}"
    path.write_bytes(path.read_bytes()[:-1000])
    assert re.search(rf"w\.{suffix} is (torn|not a whole)", refusal(path, a_network()))


@pytest.mark.parametrize(("content", "has"), [({"epoch": 3}, "epoch"), ([1], "a list"), (torch.zeros(2), "a Tensor")])
def test_a_file_without_weights_is_refused_and_says_what_it_holds(tmp_path, content, has):
    torch.save(content, tmp_path / "w.pt")
    said = refusal(tmp_path / "w.pt", a_network())
    assert f"holds {has}, but no weights by name, neither at the top nor in state_dict, model, network" in said


def test_what_is_not_there_is_said_with_its_whole_path(tmp_path):
    assert refusal(tmp_path / "w.pt", a_network()).endswith(f"there is no file {tmp_path / 'w.pt'}")
    (tmp_path / "folder").mkdir()
    assert "is a folder without weights.safetensors and model.json" in refusal(tmp_path / "folder", a_network())


def test_a_model_folder_with_other_weights_than_its_card_s_is_refused(tmp_path):
    save_model(tmp_path / "model")
    save_safetensors(a_network().state_dict(), tmp_path / "model/weights.safetensors")
    assert "is not the file that its card was written for: restore both" in refusal(tmp_path / "model", a_network())


# --- torchvision's named weights ---------------------------------------------------------------------------------


def test_a_name_that_torchvision_does_not_know_is_refused_with_those_it_knows(tmp_path):
    with pytest.raises(ValueError, match=r"resnet50 has IMAGENET1K_V1, IMAGENET1K_V2"):
        read("torchvision:IMAGENET", "resnet50", tmp_path)


def test_without_a_network_connection_the_remedy_is_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))  # an empty cache
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # where nobody answers
    monkeypatch.setattr(urllib.request, "_opener", None)  # it is made once per process, and knows its proxies
    with pytest.raises(ValueError, match=r"cannot be fetched here .*: fetch https://\S+\.pth elsewhere and give"):
        read("torchvision:IMAGENET1K_V2", "resnet50", tmp_path)


@pytest.mark.medium
def test_fetched_weights_come_with_their_normalisation(tmp_path, monkeypatch):
    from torchvision.models import ResNet50_Weights, resnet50

    theirs = resnet50(weights=None)
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    name = ResNet50_Weights.IMAGENET1K_V2.url.rpartition("/")[2]
    torch.save(theirs.state_dict(), tmp_path / "hub/checkpoints" / name)  # a file in the cache is not checked again
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    found = read("torchvision:IMAGENET1K_V2", "resnet50", tmp_path)
    ours = a_network("resnet50", (3, 64, 64), 1000, *IMAGENET)
    fit_into(ours, found, may_replace_head=False)
    same_logits(ours[1].eval(), theirs, (3, 64, 64))
    with pytest.raises(ValueError, match=r"set train\.mean: \[0\.485, 0\.456, 0\.406\] and train\.std"):
        fit_into(a_network("resnet50", (3, 64, 64), 1000), found, may_replace_head=False)


# --- parts -------------------------------------------------------------------------------------------------------


def test_names_lose_what_all_start_with_but_keep_their_last_part():
    assert bare_names(["module.1.a.weight", "module.1.b.weight"]) == {
        "a.weight": "module.1.a.weight",
        "b.weight": "module.1.b.weight",
    }
    assert bare_names(["fc.weight", "fc.bias"]) == {"weight": "fc.weight", "bias": "fc.bias"}
    assert bare_names(["0.weight", "0.module.weight"]) == {"weight": "0.weight", "module.weight": "0.module.weight"}
    assert bare_names([]) == {}


@pytest.mark.parametrize(
    ("name", "shape", "last"),
    [("lenet", (1, 28, 28), "9"), ("resnet20", (3, 32, 32), "14"), ("resnet50", (3, 64, 64), "fc")],
)
def test_the_last_layer_is_the_classifier(name, shape, last):
    assert last_layer(networks.build(name, shape, 10))[0] == last


def test_the_identity_is_the_content_whatever_the_path(tmp_path):
    save_model(tmp_path / "model")
    file = tmp_path / "model/weights.safetensors"
    copied = tmp_path / "copy.safetensors"
    copied.write_bytes(file.read_bytes())
    assert identity("model", tmp_path) == identity(str(file), tmp_path) == identity("copy.safetensors", tmp_path)
    copied.write_bytes(file.read_bytes() + b" ")
    assert identity("copy.safetensors", tmp_path) != identity("model", tmp_path)
    assert identity("torchvision:DEFAULT", tmp_path).startswith("torchvision:DEFAULT of torchvision ")
