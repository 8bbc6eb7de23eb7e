"""Several processes are the same training as one: real ones, over gloo."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from components.model import networks
from components.training.fit import fit
from components.training.fusing import FusedConvolution, fuse
from components.training.optimizer import make_optimizer
from components.training.ranks import Ranks, SharedBatchNorm2d, share_batch_norm
from components.training.state import Training
from tests.support.ranks import started
from tests.support.small_training import validation_on
from tests.support.warm_start import PYTHON

pytestmark = pytest.mark.medium


def in_one(network, data, settings):
    training = Training(network, make_optimizer(network, settings), validation_on(data, settings))
    sizes = list(fit(training, *data, max_value=16, sigma=0.5, settings=settings, seed=0))
    return {"sizes": sizes, "weights": network.state_dict(), "history": training.history}


def in_several(folder, num, network, data, settings):
    torch.save({"network": copy.deepcopy(network), "data": data, "settings": settings}, folder / "job.pt")
    with started(num, *PYTHON, "-m", "tests.support.train_in_processes", str(folder)) as ranks:
        for rank in ranks:
            _, errors = rank.communicate(timeout=300)
            assert rank.returncode == 0, errors
    result = torch.load(folder / "result.pt", weights_only=False)
    assert result["processes"] == num
    return result


def assert_same_training(one, several):
    """Weights, statistics of batch norm and history within 1e-5."""
    assert several["sizes"] == one["sizes"]
    assert set(several["weights"]) == set(one["weights"])
    for name, value in one["weights"].items():
        torch.testing.assert_close(
            several["weights"][name], value, rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )
    for ours, theirs in zip(several["history"], one["history"], strict=True):
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-5)
        assert ours.noisy_accuracy == pytest.approx(theirs.noisy_accuracy, abs=1e-9)
        assert ours.val_noisy_accuracy == pytest.approx(theirs.val_noisy_accuracy, abs=1e-9)


def test_three_processes_train_as_one_even_where_a_step_has_fewer_images(tmp_path, settings):
    """Groups of 4 images, then of one: unequal shards, and one image that all three hold; with batch norm."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    data = torch.randint(0, 17, (18, 1, 4, 4), dtype=torch.uint8), torch.randint(0, 3, (18,))
    settings = replace(settings, epochs=4, batch_size=8, augment="crop_flip")
    several = in_several(tmp_path, 3, network, data, settings)
    one = in_one(network, data, settings)
    assert one["sizes"] == 4 * [4, 4, 4, 4, 1, 1]
    assert_same_training(one, several)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shape", "dtype"), [("lenet", (1, 28, 28), torch.float32), ("resnet20", (3, 32, 32), torch.float64)]
)
def test_two_processes_train_the_published_networks_as_one_for_20_steps(tmp_path, settings, name, shape, dtype):
    """The ResNet in float64: in one process too, other weights by 1e-7 at the start are others by 1e-3 at the end."""
    torch.manual_seed(0)
    network = networks.build(name, shape, 10, [0.0] * shape[0], [1.0] * shape[0]).to(dtype)
    data = torch.randint(0, 17, (10 * 15, *shape), dtype=torch.uint8), torch.randint(0, 10, (10 * 15,))
    settings = replace(settings, network=name, epochs=1, batch_size=15, learning_rate=0.01)
    several = in_several(tmp_path, 2, network, data, settings)
    one = in_one(network, data, settings)
    assert one["sizes"] == 20 * [7]
    assert_same_training(one, several)


def test_batch_norm_is_replaced_by_one_with_the_same_state():
    network = networks.build("resnet20", (3, 32, 32), 10)
    network(torch.rand(4, 3, 32, 32))
    before = copy.deepcopy(network.state_dict())
    share_batch_norm(network, Ranks(0, 2))
    kinds = [type(module) for module in network.modules()]
    assert nn.BatchNorm2d not in kinds
    assert kinds.count(SharedBatchNorm2d) == 21
    assert list(network.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_on_a_gpu_batch_norm_is_torch_s_own_over_all_processes_and_the_attack_still_fuses_it():
    """Torch's own runs on GPUs alone: here the tensors have a device and no memory."""
    with FakeTensorMode(), torch.device("cuda"):
        network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        before = {name: id(value) for name, value in network.named_parameters()}
        share_batch_norm(network, Ranks(0, 2))
    assert type(network[1]) is nn.SyncBatchNorm
    assert {name: id(value) for name, value in network.named_parameters()} == before
    assert [type(layer) for layer in fuse(network).children()] == [FusedConvolution, nn.ReLU]


def test_shards_hold_every_image_once_and_weigh_as_much_as_they_hold():
    for total, size in [(8, 2), (7, 2), (9, 4), (4, 4)]:
        processes = [Ranks(rank, size) for rank in range(size)]
        shards = [one.shard_of(total) for one in processes]
        assert [row for shard in shards for row in range(shard.first, shard.last)] == list(range(total))
        for one, shard in zip(processes, shards, strict=True):
            one.turn_to(shard)
        weights = [one.weight(shard) for one, shard in zip(processes, shards, strict=True)]
        assert sum(weights) == pytest.approx(1)
        assert weights == pytest.approx([(shard.last - shard.first) / total for shard in shards])


def test_a_group_smaller_than_the_processes_is_whole_in_each():
    processes = [Ranks(rank, 3) for rank in range(3)]
    assert [one.shard_of(2)[:2] for one in processes] == [(0, 2)] * 3
    for one in processes:
        one.turn_to(one.shard_of(2))
    assert sum(one.weight(one.shard_of(2)) for one in processes) == pytest.approx(1)
