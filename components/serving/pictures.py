"""Pictures as callers have them, PNG, JPEG or WebP, as images of the model: decoded and resized as in training.

The certificate is about what comes out: the small image on the model's grid, not the picture that was sent.
"""

import base64
import binascii
from io import BytesIO
from typing import Any

import numpy as np
import torch
from torch import Tensor

from components.data import image_files
from components.data.image_files import ImageFileError
from components.data.sources.class_folders import IMAGENET_MEAN
from components.data.streaming import CROPS, SIDES
from components.model.card import ModelCard
from components.tools.page.pictures import encoded, image_of

FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP"}
"""The content types that are read, and Pillow's names of them."""
NAMES = "PNG, JPEG or WebP"
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
    images, rules = [], []
    for index, (data, size) in enumerate(zip(pictures, sizes, strict=True)):
        try:
            pixels, rule = _pixels(data, card)
        except ImageFileError as error:
            raise ValueError(f"image {index} ({size} pixels) cannot be used: {error}") from None
        # Where 255 does not divide the grid, as with the 16 levels of the digits, the nearest step is the image.
        steps = np.rint(pixels.astype(np.float64) * card.grid / 255)
        images.append(torch.from_numpy((steps / card.grid).astype(np.float32)))
        rules.append(rule)
    return torch.stack(images), rules


def _pixels(data: bytes, card: ModelCard) -> tuple[np.ndarray, str]:
    """uint8 (C, H, W), and what was done, in words."""
    channels, height, width = card.image_shape
    if channels not in (1, 3):
        raise ImageFileError(f"the model's images have {channels} channels: send them as numbers")
    image = image_files.decode(data, channels)
    before = f"{image.width}x{image.height}"
    if image.size == (width, height):
        rule = f"{before}, as the model's images: not resized"
    else:
        image = image_files.resize_and_crop(image, cover_of(card), (height, width))
        rule = f"{before} to {width}x{height}: {resizing(card)}, centre crop"
    return image_files.to_array(image), rule + colour_rule(card)


def cover_of(card: ModelCard) -> tuple[int, int]:
    """Height and width that a picture is resized to cover before the centre is cut out.

    The card does not say it: image folders resize to the model's size itself, and ImageNet, whose models alone have its
    mean, to more.
    """
    height, width = card.image_shape[1:]
    return SIDES if card.mean == IMAGENET_MEAN and (height, width) == CROPS else (height, width)


def resizing(card: ModelCard) -> str:
    """How a picture is resized, in words."""
    height, width = cover_of(card)
    return f"shorter side to {height}" if height == width else f"resized to cover {width}x{height}"


def colour_rule(card: ModelCard) -> str:
    """The rest of the rule, which does not depend on the picture."""
    grid = "" if card.grid % 255 == 0 else f"; values to the nearest of {card.grid} steps"
    return ("; as grey" if card.image_shape[0] == 1 else "; as RGB") + grid


def picture_rule(card: ModelCard) -> str:
    """How pictures become images of this model, in words."""
    channels, height, width = card.image_shape
    if channels not in (1, 3):
        return "no pictures, only numbers"
    return f"{resizing(card)}, centre crop to {width}x{height}" + colour_rule(card)


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
    """A PNG of uint8 (C, H, W), of one or three channels."""
    return encoded(image_of(pixels), "PNG")
