"""Trained weights as files: a safetensors file with its card beside it."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save_file
from torch import nn

from components.model import networks
from components.model.card import CARD, WEIGHTS, ModelCard, load_card
from components.tools.files import write_json
from components.tools.hashing import hash_file


def save(trained: nn.Module, folder: Path, **facts: Any) -> ModelCard:
    """Write weights and card; `facts` are all fields of the card except the hash of the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in trained.state_dict().items()}
    save_file(tensors, folder / WEIGHTS)
    card = ModelCard(weights_sha256=hash_file(folder / WEIGHTS), **facts)
    write_json(folder / CARD, asdict(card))
    return card


def load(folder: Path, device: torch.device | str = "cpu") -> tuple[nn.Module, ModelCard]:
    """The trained network in eval mode, and its card.

    Raises:
        ValueError: a file is missing or torn, or the weights are not those that the card was written for.
    """
    card = load_card(folder)
    path = folder / WEIGHTS
    if not path.exists() or hash_file(path) != card.weights_sha256:
        raise ValueError(f"{path} is missing or not the file that {CARD} was written for: restore both or train again")
    channels, height, width = card.image_shape
    network = networks.build(card.network, (channels, height, width), len(card.classes), card.mean, card.std)
    network.load_state_dict(load_tensors(path.read_bytes()))
    return network.to(device).eval(), card
