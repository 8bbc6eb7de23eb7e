"""MNIST and CIFAR-10 as they are published, where SMOOTHMIX_DATA names them."""

from hashlib import md5
from pathlib import Path

import numpy as np
import pytest

from components import params
from components.data.prepared import prepare
from components.data.sources import SOURCES, cifar10

ROOT = Path(__file__).parents[2]


def test_the_real_mnist(mnist_files):
    settings = params.load(ROOT / "recipes/mnist.yaml").prepare
    source = SOURCES["mnist"](params.replace(settings, download=False), mnist_files)
    train, test, description = prepare(source, "mnist", test_share=None, enlarge=None, seed=0)
    assert np.bincount(train.labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert md5((mnist_files / "MNIST/raw/train-images-idx3-ubyte").read_bytes()).hexdigest().startswith("6bbc9ace")
    assert description.train_sha256 == "7a2f4e223b4160926693eb2fb52519543007efadfb387149fe289952179b579a"
    assert description.test_sha256 == "3ea75be2fbd1d7ab1ab269b030d7bd8a3b44b2b3a818ffa19d973519fb955a9b"


def test_the_real_cifar10(published):
    if not (published / "cifar-10-batches-py").exists():
        pytest.skip("SMOOTHMIX_DATA has no cifar-10-batches-py")
    source = cifar10(published, download=False)
    assert np.bincount(source.labels).tolist() == [5000] * 10
    assert np.bincount(source.test[1]).tolist() == [1000] * 10
    assert source.classes[:2] == ["airplane", "automobile"]
