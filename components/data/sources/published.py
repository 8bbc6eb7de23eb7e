"""Published data sets: digits from inside scikit-learn, MNIST and CIFAR-10 through torchvision's readers."""

from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from components.data.sources.source import Source
from components.tools.wording import counted

CIFAR10_MEAN, CIFAR10_STD = [0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]


def digits() -> Source:
    """scikit-learn's handwritten digits (UCI, 1797 grey images of 8x8, values 0 to 16): shipped inside the library."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return Source(
        images=bunch.images[:, None],
        labels=bunch.target,
        classes=[str(name) for name in bunch.target_names],
        max_value=16,
        origin="scikit-learn load_digits (UCI optical recognition of handwritten digits, test part)",
    )


def mnist(root: Path, *, download: bool) -> Source:
    """MNIST (60,000 and 10,000 grey images of 28x28), from the four idx files in `root`/MNIST/raw.

    Raises:
        ValueError: naming the file that is missing, torn or of another kind.
    """
    from torchvision.datasets import MNIST

    raw = root / "MNIST" / "raw"
    pairs = [(raw / f"{name}-images-idx3-ubyte", raw / f"{name}-labels-idx1-ubyte") for name in ("train", "t10k")]
    if download and not all(path.is_file() for pair in pairs for path in pair):
        _download(MNIST, root)
    for images, labels in pairs:
        count, others = _idx_shape(images, dimensions=3)[0], _idx_shape(labels, dimensions=1)[0]
        if count != others:
            has = f"{counted(others, 'labels')} for {counted(count, 'images')}"
            raise ValueError(f"{labels} has {has}: {_remedy(root)}")
    train, test = MNIST(root, train=True), MNIST(root, train=False)
    return Source(
        images=train.data.numpy()[:, None],
        labels=train.targets.numpy(),
        classes=list("0123456789"),
        max_value=255,
        origin="MNIST",
        test=(test.data.numpy()[:, None], test.targets.numpy()),
    )


def _idx_shape(path: Path, *, dimensions: int) -> list[int]:
    """The shape of an idx file of bytes: magic number, big-endian sizes, values. Torchvision checks no length."""
    try:
        with path.open("rb") as file:
            header = file.read(4 + 4 * dimensions)
        size = path.stat().st_size
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): {_remedy(path.parents[2])}") from None
    shape = np.frombuffer(header[4 : len(header) // 4 * 4], dtype=">u4").tolist()
    if header[:4] != bytes([0, 0, 8, dimensions]) or len(shape) != dimensions:
        raise ValueError(f"{path} is no idx file of bytes in {dimensions} dimension(s): {_remedy(path.parents[2])}")
    if size != len(header) + prod(shape):
        expected = len(header) + prod(shape)
        raise ValueError(f"{path} has {size} bytes instead of {expected}: {_remedy(path.parents[2])}")
    return shape


def cifar10(root: Path, *, download: bool) -> Source:
    """CIFAR-10 (50,000 and 10,000 RGB images of 32x32), from the Python batches in `root`/cifar-10-batches-py.

    The batches are pickles: only files with the published checksums are opened.

    Raises:
        ValueError: naming the file that is missing or differs from the published one.
    """
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import check_integrity

    folder = root / CIFAR10.base_folder
    checksums = dict([*CIFAR10.train_list, *CIFAR10.test_list, (CIFAR10.meta["filename"], CIFAR10.meta["md5"])])
    if download and not all((folder / name).is_file() for name in checksums):
        _download(CIFAR10, root)
    for name, md5 in checksums.items():
        path = folder / name
        if not path.is_file():
            raise ValueError(f"{path} is missing: {_remedy(root)}")
        if not check_integrity(path, md5):
            raise ValueError(f"{path} is not the published file (its MD5 is not {md5}): {_remedy(root)}")
    train, test = CIFAR10(root, train=True), CIFAR10(root, train=False)
    return Source(
        images=train.data.transpose(0, 3, 1, 2),
        labels=np.array(train.targets),
        classes=list(train.classes),
        max_value=255,
        origin="CIFAR-10",
        test=(test.data.transpose(0, 3, 1, 2), np.array(test.targets)),
        mean=CIFAR10_MEAN,
        std=CIFAR10_STD,
    )


def _download(dataset: Any, root: Path) -> None:
    """Fetch and unpack into `root`."""
    try:
        dataset(root, download=True)
    except (RuntimeError, OSError, EOFError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{dataset.__name__} could not be downloaded to {root} ({reason}): try again, or put its files there "
            "by hand and set prepare.download to false"
        ) from None


def _remedy(root: Path) -> str:
    return f"put the published file there (prepare.root is {root}), or remove it and set prepare.download to true"
