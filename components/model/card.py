"""The card beside trained weights: the facts that the weights file does not contain."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.tools.files import read_record

CARD, WEIGHTS = "model.json", "weights.safetensors"


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


def load_card(folder: Path) -> ModelCard:
    return read_record(folder / CARD, "run the train stage again", ModelCard)
