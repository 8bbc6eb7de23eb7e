"""A training method of the user's own, by a dotted name: an `Objective` whose keyword `own` is annotated with a
dataclass of its hyper-parameters."""

import inspect
from dataclasses import is_dataclass
from types import NoneType
from typing import Any, get_type_hints

import torch
from torch import Tensor, nn

from components import own_code
from components.params import OWN_METHOD, Train
from components.parsing import convert
from components.training.draws import Draws

ARGUMENTS = "(network, images, labels, *, sigma, settings, epoch, draws, own)"
IMAGES = 4
"""Number of random images that an own method is tried on."""


def resolved(settings: Train) -> tuple[Any, Any]:
    """The function that `train.method` names, and its hyper-parameters from `train.own_method`.

    Raises:
        ValueError: in one line that names what is wrong.
    """
    said = f"train.method is {settings.method!r}"
    with own_code.named_errors(said):
        code = own_code.find(settings.method)
    with own_code.named_errors(said, code):
        objective = own_code.load(code)
        if not callable(objective):
            raise ValueError(f"is of type {type(objective).__name__}, must be a function of {ARGUMENTS}")
        try:
            inspect.signature(objective).bind(*"123", sigma=0, settings=0, epoch=0, draws=0, own=0)
        except TypeError as error:
            raise ValueError(f"must take the arguments {ARGUMENTS}: {error}") from None
        kind = get_type_hints(objective).get("own", NoneType)
        own = _converted(settings, kind)
    if getattr(own, "splits_batch", False) and settings.batch_size < own.num_noises:
        raise ValueError(
            f"train.batch_size is {settings.batch_size}: must be >= own_method.num_noises {own.num_noises}"
        )
    return objective, own


def _converted(settings: Train, kind: Any) -> Any:
    """The section `own_method` as the dataclass `kind`, or None where the method has no hyper-parameters."""
    if kind is NoneType and not settings.own_method:
        return None
    if not (isinstance(kind, type) and is_dataclass(kind)):
        raise ValueError(
            f"train.own_method is {settings.own_method!r}, and the keyword own is not annotated with a dataclass that "
            "says what it may hold"
        )
    problems: list[str] = []
    try:
        own = convert(settings.own_method, kind, OWN_METHOD, problems)
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{kind.__name__} has a field of a type that params.yaml has not ({error}): use bool, int, float, str, "
            "list, dict, Literal, Annotated with a Range, or a dataclass"
        ) from None
    if problems:
        raise ValueError("; ".join(problems))
    if getattr(own, "splits_batch", False) and type(getattr(own, "num_noises", None)) is not int:
        raise ValueError(f"{kind.__name__} has splits_batch: it needs a field num_noises: Count")
    return own


def try_out(settings: Train, sigma: float, network: nn.Module, image_shape: tuple[int, int, int], classes: int) -> None:
    """Let an own method compute the loss of some random images, with its gradient; torch's global generator stays as
    it is.

    Raises:
        ValueError: in one line that names what is wrong.
    """
    objective, own = resolved(settings)
    code, said = own_code.find(settings.method), f"train.method is {settings.method!r}"
    images = torch.rand(IMAGES, *image_shape, generator=torch.Generator().manual_seed(0))
    draws = Draws(0, 0, 0, torch.device("cpu"))
    with torch.random.fork_rng(devices=[]), own_code.named_errors(f"{said}: fails on random images", code):
        answer = objective(
            network.train(),
            images,
            torch.arange(IMAGES) % classes,
            sigma=sigma,
            settings=settings,
            epoch=0,
            draws=draws,
            own=own,
        )
    loss, logits = answer if isinstance(answer, tuple) and len(answer) == 2 else (answer, None)
    of_images = isinstance(logits, Tensor) and logits.ndim == 3 and logits.shape[1:] == (IMAGES, classes)
    if not (isinstance(loss, Tensor) and loss.ndim == 0 and loss.requires_grad and of_images):
        given = (f"{tuple(part.shape)}" if isinstance(part, Tensor) else type(part).__name__ for part in (loss, logits))
        raise ValueError(
            f"{said}: gives {' and '.join(given)} for {IMAGES} images of {classes} classes: must give the loss, a "
            f"number with a gradient, and the logits of the noisy images (m, {IMAGES}, {classes})"
        )
