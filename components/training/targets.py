"""The model of Gaussian training that catrs takes its targets from."""

from pathlib import Path

import torch
from torch import nn

from components.data.prepared import Description
from components.model import networks
from components.model.card import CARD, load_card
from components.model.pretrained import fit_into, read
from components.model.weights_files import TARGETS_KEY, locate
from components.params import Train
from components.training.state import normalisation


def gaussian_network(settings: Train, description: Description, root: Path, device: torch.device) -> nn.Module | None:
    """The network with the weights that catrs.targets names; None where the method needs none. Torch's global generator
    stays as it is.

    Raises:
        ValueError: the file cannot be read, is of another network or other classes, or was trained at another sigma.
    """
    if settings.targets is None:
        return None
    channels, height, width = description.image_shape
    shape, classes = (channels, height, width), len(description.classes)
    with torch.random.fork_rng(devices=[]):
        network = networks.build(settings.network, shape, classes, *normalisation(settings, description))
    check(settings, root)
    found = read(settings.targets, settings.network, root, TARGETS_KEY)
    done = fit_into(network, found, may_replace_head=True)
    if "is new" in done:
        raise ValueError(
            f"{TARGETS_KEY} is {settings.targets!r}: a model of other classes: give one of these {classes}"
        )
    return network.to(device).eval()


def check(settings: Train, root: Path) -> None:
    """Raises ValueError if the file that catrs.targets names is not there, or its card says another sigma."""
    if settings.targets is None:
        return
    folder = locate(settings.targets, root, TARGETS_KEY).parent
    sigma = settings.catrs.targets_sigma
    if (root / Path(settings.targets).expanduser()).is_dir() and (found := load_card(folder).sigma) != sigma:
        raise ValueError(
            f"{TARGETS_KEY} is {settings.targets!r}: its {CARD} says sigma {found}, and catrs.targets_sigma is "
            f"{sigma}: give a model of that sigma"
        )
