"""Files of weights that a training starts from: where they lie, and what identifies them. Needs no torch."""

from importlib.metadata import version
from pathlib import Path

from components.model.card import CARD, WEIGHTS
from components.tools.hashing import hash_file

TORCHVISION = "torchvision:"
"""Before the name of weights that torchvision fetches, such as IMAGENET1K_V2 or DEFAULT."""
WEIGHTS_KEY, TARGETS_KEY = "train.weights", "train.catrs.targets"
"""The parameters that name such files, for messages."""


def locate(weights: str, root: Path, key: str = WEIGHTS_KEY) -> Path:
    """The file that holds the weights: `weights` itself, counted from `root`, or the one in a model folder.

    Args:
        key: the parameter that names them.

    Raises:
        ValueError: there is none.
    """
    path = root / Path(weights).expanduser()
    if path.is_dir():
        if not (path / WEIGHTS).is_file() or not (path / CARD).is_file():
            raise ValueError(f"{key} is {weights!r}: {path} is a folder without {WEIGHTS} and {CARD}")
        return path / WEIGHTS
    if not path.is_file():
        raise ValueError(f"{key} is {weights!r}: there is no file {path}")
    return path


def identity(weights: str, root: Path, key: str = WEIGHTS_KEY) -> str:
    """What a training that starts from these weights depends on: the SHA-256 of the file's content, whatever its path;
    for torchvision's named weights, which torchvision checks itself, their name and torchvision's version.

    Raises:
        ValueError: there is no such file.
    """
    if weights.startswith(TORCHVISION):
        return f"{weights} of torchvision {version('torchvision')}"
    return hash_file(locate(weights, root, key))
