"""MNIST and CIFAR-10 as sources: their files are read as they are, and a spoilt one is named."""

import gzip
import pickle
import struct
import threading
from functools import partial
from hashlib import md5
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import CIFAR10, MNIST

from components.data.prepared import prepare
from components.data.sources import cifar10, mnist

RNG = np.random.default_rng(0)


def write_idx(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    path.write_bytes(header + values.astype(np.uint8).tobytes())


@pytest.fixture
def mnist_root(tmp_path):
    """Forty and twenty random images as the four files of MNIST."""
    for name, count in (("train", 40), ("t10k", 20)):
        write_idx(tmp_path / f"MNIST/raw/{name}-images-idx3-ubyte", RNG.integers(0, 256, (count, 28, 28)))
        write_idx(tmp_path / f"MNIST/raw/{name}-labels-idx1-ubyte", np.arange(count) % 10)
    return tmp_path


def test_mnist_is_read_as_its_files_have_it(mnist_root):
    source = mnist(mnist_root, download=False)
    pixels = (mnist_root / "MNIST/raw/t10k-images-idx3-ubyte").read_bytes()[16:]
    assert source.images.shape == (40, 1, 28, 28)
    assert source.test[0].tobytes() == pixels
    assert source.test[1].tolist() == [*range(10)] * 2
    train, test, description = prepare(source, "mnist", test_share=None, enlarge=None, seed=0)
    assert (len(train), len(test)) == (description.train_images, description.test_images) == (40, 20)
    assert np.array_equal(train.images, source.images)
    assert (description.max_value, description.mean, description.image_shape) == (255, None, [1, 28, 28])
    assert str(mnist_root) not in str(description), "the identity is the same on every machine"


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "No such file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "bytes instead of"),
        (lambda path: path.write_bytes(path.read_bytes() + b"0"), "bytes instead of"),
        (lambda path: path.write_bytes(b""), "is no idx file of bytes"),
        (lambda path: path.write_bytes(gzip.compress(path.read_bytes())), "is no idx file of bytes"),
    ],
    ids=["missing", "truncated", "too long", "empty", "still packed"],
)
def test_a_spoilt_file_of_mnist_is_named(mnist_root, name, damage, message):
    path = mnist_root / "MNIST/raw" / name
    damage(path)
    with pytest.raises(ValueError, match=message) as refusal:
        mnist(mnist_root, download=False)
    assert str(refusal.value).startswith(str(path))
    assert "prepare.download" in str(refusal.value)


def test_labels_that_do_not_go_with_the_images_of_mnist_are_named(mnist_root):
    write_idx(mnist_root / "MNIST/raw/train-labels-idx1-ubyte", np.zeros(39))
    with pytest.raises(ValueError, match="train-labels-idx1-ubyte has 39 labels for 40 images"):
        mnist(mnist_root, download=False)


def test_mnist_is_downloaded_once(mnist_root, tmp_path, monkeypatch):
    """The real download, from a server on this machine that has packed files."""
    served, target = tmp_path / "served", tmp_path / "target"
    served.mkdir()
    resources = []
    for path in sorted((mnist_root / "MNIST/raw").iterdir()):
        packed = gzip.compress(path.read_bytes())
        (served / f"{path.name}.gz").write_bytes(packed)
        resources.append((f"{path.name}.gz", md5(packed).hexdigest()))
    handler = partial(SimpleHTTPRequestHandler, directory=served)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setattr(MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
        monkeypatch.setattr(MNIST, "resources", resources)
        fetched = mnist(target, download=True)
        server.shutdown()
    assert np.array_equal(fetched.images, mnist(mnist_root, download=False).images)
    assert len(mnist(target, download=True).images) == 40


def test_a_download_that_fails_is_one_error_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/"])
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/cifar.tar.gz")
    for source, name in ((mnist, "MNIST"), (cifar10, "CIFAR10")):
        with pytest.raises(
            ValueError, match=f"{name} could not be downloaded to .* set prepare.download to false"
        ) as it:
            source(tmp_path, download=True)
        assert "\n" not in str(it.value)


@pytest.fixture
def cifar_root(tmp_path, monkeypatch):
    """Batches of four images in CIFAR-10's format. Torchvision opens the published bytes alone, so that the checksums
    it compares with are replaced by those of our files."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()

    def write(name, content):
        (folder / name).write_bytes(pickle.dumps(content))
        return [name, md5((folder / name).read_bytes()).hexdigest()]

    def batch(name):
        return write(name, {"data": RNG.integers(0, 256, (4, 3072), dtype=np.uint8), "labels": [3, 0, 9, 1]})

    monkeypatch.setattr(CIFAR10, "train_list", [batch(f"data_batch_{i}") for i in range(1, 6)])
    monkeypatch.setattr(CIFAR10, "test_list", [batch("test_batch")])
    name, checksum = write("batches.meta", {"label_names": list("abcdefghij")})
    monkeypatch.setattr(CIFAR10, "meta", {"filename": name, "key": "label_names", "md5": checksum})
    return tmp_path


def test_cifar10_is_read_as_its_batches_have_it(cifar_root):
    source = cifar10(cifar_root, download=False)
    batches = [
        pickle.loads((cifar_root / f"cifar-10-batches-py/{name}").read_bytes())
        for name in ("data_batch_1", "data_batch_5", "test_batch")
    ]
    assert source.images.shape == (20, 3, 32, 32)
    assert np.array_equal(source.images[:4].reshape(4, -1), batches[0]["data"])
    assert np.array_equal(source.images[16:].reshape(4, -1), batches[1]["data"])
    assert np.array_equal(source.test[0].reshape(4, -1), batches[2]["data"])
    assert source.test[1].tolist() == [3, 0, 9, 1]
    _, _, description = prepare(source, "cifar10", test_share=None, enlarge=None, seed=0)
    assert description.mean == [0.4914, 0.4822, 0.4465]
    assert description.std == [0.2023, 0.1994, 0.2010]


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
def test_a_missing_or_changed_batch_of_cifar10_is_named_and_never_opened(cifar_root, name):
    path = cifar_root / "cifar-10-batches-py" / name
    path.write_bytes(b"cos\nsystem\n(S'touch " + str(cifar_root / "pwned").encode() + b"'\ntR.")
    with pytest.raises(ValueError, match=f"{name} is not the published file"):
        cifar10(cifar_root, download=False)
    assert not (cifar_root / "pwned").exists()
    path.unlink()
    with pytest.raises(ValueError, match=f"{name} is missing: put the published file there"):
        cifar10(cifar_root, download=False)
