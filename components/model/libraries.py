"""Networks of torchvision and timm by their names there, without weights. Each library is imported when it is asked."""

from difflib import get_close_matches
from typing import Any

from torch import nn


def of_torchvision(model: str, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """A classification model of torchvision without its weights; a new first convolution takes other channels than 3.

    Raises:
        ValueError: torchvision has no such model.
    """
    from torchvision import models

    known = models.list_models(module=models)
    if model not in known:
        raise ValueError(f"torchvision has no classification model {model}: {_near(model, known)}")
    network = models.get_model(model, weights=None, num_classes=num_classes)
    name, first = next((name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d))
    if image_shape[0] != first.in_channels:
        facts: Any = {key: getattr(first, key) for key in ("kernel_size", "stride", "padding", "dilation")}
        other = nn.Conv2d(image_shape[0], first.out_channels, bias=first.bias is not None, **facts)
        network.set_submodule(name, other)
    return network


def of_timm(model: str, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """A model of timm without its weights.

    Raises:
        ValueError: timm has no such model.
    """
    import timm

    if not timm.is_model(model):
        raise ValueError(f"timm {timm.__version__} has no model {model}: {_near(model, timm.list_models())}")
    return timm.create_model(model, pretrained=False, in_chans=image_shape[0], num_classes=num_classes)


def _near(model: str, known: list[str]) -> str:
    near = get_close_matches(model, known)
    return f"perhaps {', '.join(near)} is meant" if near else f"it has {', '.join(known[:3])} and others"


LIBRARIES = {"torchvision": of_torchvision, "timm": of_timm}
"""Networks of libraries, as in `torchvision:resnet18`."""
