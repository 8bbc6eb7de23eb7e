"""Pictures as callers have them, PNG, JPEG or WebP, as images of the model: decoded and resized as in training.

The certificate is about what comes out: the small image on the model's grid, not the picture that was sent.
"""

import base64
import binascii
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import torch
from torch import Tensor

from components.data import picture_forms
from components.data.image_files import WHITE, ImageFileError
from components.data.picture_forms import USUAL_VIEW, Form
from components.data.sources.class_folders import IMAGENET_MEAN
from components.model.card import ModelCard
from components.tools.page.pictures import encoded, image_of

FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP"}
"""The content types that are read, and Pillow's names of them."""
NAMES = "PNG, JPEG or WebP"
COLOURS = {1: "grey", 2: "grey with opacity", 3: "RGB", 4: "RGB with opacity"}
MAX_PIXELS = 2**24
"""Of all pictures of a request: 4096x4096. A few bytes can claim any size, so this is checked before decoding."""
MAX_BYTES = 2**24


class TooLarge(ValueError):
    """More pixels than a request may have."""


def picture_sizes(pictures: list[bytes]) -> list[str]:
    """Width and height of each picture, as text; reads their headers only.

    Raises:
        ValueError: one sentence: a picture is of another format, cannot be read, is animated.
        TooLarge: they have more than `MAX_PIXELS` pixels in all.
    """
    sizes, pixels = [], 0
    for index, data in enumerate(pictures):
        width, height = _header(data, index)
        pixels += width * height
        if pixels > MAX_PIXELS:
            raise TooLarge(
                f"image {index} has {width}x{height} pixels: the limit of a request is {MAX_PIXELS} pixels in all, "
                "so send a smaller picture or fewer"
            )
        sizes.append(f"{width}x{height}")
    return sizes


def _header(data: bytes, index: int) -> tuple[int, int]:
    from PIL import Image

    try:
        image: Any = Image.open(BytesIO(data), formats=tuple(FORMATS.values()))
        # A JPEG may hold further pictures, such as a preview; training reads the first one of these too.
        animated = image.format in ("PNG", "WEBP") and getattr(image, "n_frames", 1) > 1
    except Image.DecompressionBombError:
        raise TooLarge(f"image {index} has far more pixels than the limit of {MAX_PIXELS} in all") from None
    except Exception:  # corrupt bytes raise nearly any error in Pillow's decoders
        raise ValueError(f"image {index} is no {NAMES} that can be read") from None
    if animated:
        raise ValueError(f"image {index} is animated: send a single frame")
    return image.size


def images_of_pictures(pictures: list[bytes], card: ModelCard) -> tuple[Tensor, list[str]]:
    """The model's images of pictures, on its grid: float32 (B, C, H, W), and how each was resized.

    Raises:
        ValueError: one sentence: as `picture_sizes`, a picture cannot be decoded, or the model's images cannot come
            from pictures.
    """
    sizes = picture_sizes(pictures)
    form = form_of(card)
    if form is None:
        raise ValueError(f"the model's images have {card.image_shape[0]} channels: send them as numbers")
    images, rules = [], []
    for index, (data, size) in enumerate(zip(pictures, sizes, strict=True)):
        try:
            pixels, rule = _pixels(data, form)
        except ImageFileError as error:
            raise ValueError(f"image {index} ({size} pixels) cannot be used: {error}") from None
        # Where the pixels are not on the grid, as those of 16 levels of the digits, the nearest step is the image.
        steps = np.rint(pixels.astype(np.float64) * card.grid / form.max_value)
        images.append(torch.from_numpy((steps / card.grid).astype(np.float32)))
        rules.append(rule + colour_rule(form, card.grid))
    return torch.stack(images), rules


def form_of(card: ModelCard) -> Form | None:
    """What pictures are brought to for a model; None if its images cannot come from pictures.

    Where the card does not say it, as older cards and those of images that were no pictures: image folders resize to
    the model's size itself, and ImageNet, whose models alone have its mean, to more.
    """
    channels, height, width = card.image_shape
    if card.pictures:
        return picture_forms.form_of(card.image_shape, card.pictures)
    if channels not in (1, 3):
        return None
    if card.mean == IMAGENET_MEAN and card.image_shape == list(USUAL_VIEW.shape):
        return USUAL_VIEW
    return Form(channels, height, width)


def _pixels(data: bytes, form: Form) -> tuple[np.ndarray, str]:
    """(C, H, W) of the form's type, and how it was resized, in words."""
    planes = picture_forms.read_planes(data, form)
    width, height = planes[0].size
    if (height, width) == (form.height, form.width):
        pixels = picture_forms.fit_planes(planes, replace(form, cover=None))
        return pixels, f"{width}x{height}, as the model's images: not resized"
    rule = f"{width}x{height} to {form.width}x{form.height}: {resizing(form)}, centre crop"
    return picture_forms.fit_planes(planes, form), rule


def resizing(form: Form) -> str:
    """How a picture is resized, in words."""
    height, width = form.covered
    return f"shorter side to {height}" if height == width else f"resized to cover {width}x{height}"


def colour_rule(form: Form, grid: int) -> str:
    """The rest of the rule, which does not depend on the picture."""
    rule = f"; as {COLOURS[form.channels]}"
    if form.channels in (1, 3) and form.background != WHITE:
        rule += f", transparent pixels on RGB {' '.join(map(str, form.background))}"
    if form.bits == 16:
        rule += ", of 16 bits"
    return rule if grid % form.max_value == 0 else f"{rule}; values to the nearest of {grid} steps"


def picture_rule(card: ModelCard) -> str:
    """How pictures become images of this model, in words."""
    form = form_of(card)
    if form is None:
        return "no pictures, only numbers"
    return f"{resizing(form)}, centre crop to {form.width}x{form.height}" + colour_rule(form, card.grid)


def bytes_of_data_url(text: str, index: int) -> bytes:
    """Raises ValueError when it is no base64 data URL of a picture."""
    head, comma, body = text.partition(",")
    kind, _, coding = head.removeprefix("data:").partition(";")
    if not comma or not head.startswith("data:") or kind not in FORMATS or coding != "base64":
        raise ValueError(f"image {index} is no data URL of a {NAMES}: data:image/png;base64,...")
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"image {index} is a data URL whose base64 is broken") from None


def data_url(pixels: np.ndarray) -> str:
    """A PNG of uint8 (C, H, W): grey or RGB, with or without opacity."""
    return encoded(image_of(pixels), "PNG")
