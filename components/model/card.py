"""The card beside trained weights: the facts that the weights file does not contain."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.tools.files import read_record
from components.tools.hashing import hash_value

CARD, WEIGHTS = "model.json", "weights.safetensors"
CODE = "code"
"""Folder of the source of a network that is not ours."""


@dataclass(frozen=True)
class ModelCard:
    """The facts needed to use the weights, and none that differs between two runs of one training (clock, host)."""

    sigma: float
    network: str
    precision: str
    image_shape: list[int]
    classes: list[str]
    mean: list[float] | None
    std: list[float] | None
    weights_sha256: str
    training_key: str
    """Hash of the training's parameters, data and code; its MLflow run is found by this key."""
    training: dict[str, Any]
    """The training parameters at this sigma, the seed and the thread count."""
    data_sha256: str
    grid: int = 4080
    """Steps from 0 to 1 of the grid that images are certified on. Older cards do not say: 4080 has both the pixels of 8
    bits and those of the digits."""
    code: dict[str, dict[str, str]] = field(default_factory=dict)
    """Of a network that is not ours: the SHA-256 of each of its files in the folder `code`, and the versions of the
    packages that it needs. Empty for ours."""
    pictures: dict[str, Any] | None = None
    """How pictures became the images that it was trained on, beside their channels, height and width: `cover`, the
    height and width that a picture is resized to cover (bilinear) before its centre is cut out; `background`, the RGB
    of 8 bits behind transparent pixels; `bits`, 8 or 16. Null where they were no pictures; older cards do not say."""

    @property
    def content(self) -> dict[str, str]:
        """What the answers of the model depend on, beside precision and grid: its weights, and the network's code."""
        weights = {"weights_sha256": self.weights_sha256}
        return weights | ({"network_code_sha256": hash_value(self.code)} if self.code else {})


def load_card(folder: Path) -> ModelCard:
    return read_record(folder / CARD, "run the train stage again", ModelCard)
