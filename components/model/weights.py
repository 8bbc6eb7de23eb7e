"""Trained weights as files: a safetensors file with its card beside it, and the code of a network that is not ours."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save_file
from torch import nn

from components.model import networks
from components.model.card import CARD, CODE, WEIGHTS, ModelCard, load_card
from components.own_code import OwnCode
from components.tools.files import remove, write_json
from components.tools.hashing import hash_file


def save(trained: nn.Module, folder: Path, *, network: str, **facts: Any) -> ModelCard:
    """Write weights, card and code.

    Args:
        network: its name; the code is what this process has built it from.
        facts: all other fields of the card except the hash of the weights and the code.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in trained.state_dict().items()}
    save_file(tensors, folder / WEIGHTS)
    code = networks.code_of(network)
    remove(folder / CODE)
    for path, source in (code.sources if code else {}).items():
        (folder / CODE / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / CODE / path).write_bytes(source)
    weights_sha256 = hash_file(folder / WEIGHTS)
    card = ModelCard(network=network, weights_sha256=weights_sha256, code=code.facts if code else {}, **facts)
    write_json(folder / CARD, asdict(card))
    return card


def load(folder: Path, device: torch.device | str = "cpu") -> tuple[nn.Module, ModelCard]:
    """The trained network in eval mode, and its card. A network that is not ours runs its code, that of the folder.

    Raises:
        ValueError: a file is missing or torn, the weights or the code are not those that the card was written for, or
            the network cannot be built here.
    """
    card = load_card(folder)
    path = folder / WEIGHTS
    if not path.exists() or hash_file(path) != card.weights_sha256:
        raise ValueError(f"{path} is missing or not the file that {CARD} was written for: restore both or train again")
    channels, height, width = card.image_shape
    shape, classes = (channels, height, width), len(card.classes)
    network = networks.build(card.network, shape, classes, card.mean, card.std, load_code(folder, card))
    network.load_state_dict(load_tensors(path.read_bytes()))
    return network.to(device).eval(), card


def load_code(folder: Path, card: ModelCard) -> OwnCode | None:
    """The code of a network that is not ours, from its model's folder.

    Raises:
        ValueError: a file is not the one that the card was written for.
    """
    if not card.code:
        return None
    paths = {name: folder / CODE / name for name in card.code["files"]}
    sources = {name: path.read_bytes() if path.exists() else b"" for name, path in paths.items()}
    code = OwnCode(card.network, sources, card.code["packages"])
    for name, sha256 in code.facts["files"].items():
        if not paths[name].exists() or sha256 != card.code["files"][name]:
            raise ValueError(
                f"{paths[name]} is missing or not the file that {CARD} was written for: restore both or train again"
            )
    return code
