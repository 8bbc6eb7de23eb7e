"""What every picture of a set is brought to: its channels, size and depth.

A set has one depth, that of its deepest picture: 16 bits if any has 16, else 8. Beside one of 16 bits, a picture of 8
bits is widened exactly: its values times 257, so that white is 65535.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from components.data.image_files import (
    FORMATS,
    USUAL_COVER,
    USUAL_SIZE,
    WHITE,
    check_opacity,
    decode,
    deep_grey,
    errors_say_why,
    luma,
    opened,
    resize_and_crop,
)

DEEP_COLOURS = {"RGB;16": "RGB", "RGBA;16": "RGBA", "LA;16": "RGBA"}
"""Pillow's names of colours of 16 bits, without the order of their bytes, and the mode of 8 bits that it reads them
into. It has grey of 16 bits of its own; other colours of 16 bits, which are rare, are read at 8 bits."""


@dataclass(frozen=True)
class Form:
    """What every picture of a set is brought to."""

    channels: int
    """1 grey, 2 grey and opacity, 3 RGB, 4 RGB and opacity."""
    height: int
    width: int
    background: tuple[int, int, int] = WHITE
    """What shows where a picture is transparent, unless there is a channel for opacity: RGB, of 8 bits."""
    bits: int = 8
    """8 or 16."""
    cover: tuple[int, int] | None = None
    """Height and width that a picture is resized to cover before its centre is cut out; None: those of the form."""

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.height, self.width

    @property
    def max_value(self) -> int:
        return int(2**self.bits - 1)

    @property
    def dtype(self) -> Any:
        return np.uint16 if self.bits == 16 else np.uint8

    @property
    def covered(self) -> tuple[int, int]:
        return self.cover or (self.height, self.width)

    @property
    def rule(self) -> dict[str, Any]:
        """All but the shape, for a description or a card."""
        return {"cover": list(self.covered), "background": list(self.background), "bits": self.bits}


def form_of(image_shape: list[int], rule: dict[str, Any]) -> Form:
    """The form that has this shape and this `rule`."""
    channels, height, width = image_shape
    return Form(channels, height, width, tuple(rule["background"]), rule["bits"], tuple(rule["cover"]))


USUAL_VIEW = Form(3, *USUAL_SIZE, cover=USUAL_COVER)


def read_picture(data: bytes, form: Form) -> np.ndarray:
    """An image file as (C, H, W) of the form's type; raises ImageFileError as `read_planes`."""
    return fit_planes(read_planes(data, form), form)


def read_planes(data: bytes, form: Form) -> Sequence[Any]:
    """The form's channels of an image file, each as a PIL image in the file's size: upright, of the form's bits.

    Raises:
        ImageFileError: as `decode`, or the picture does not have the channels for opacity that the form has.
    """
    with errors_say_why():
        return _deep_planes(data, form) if form.bits == 16 else decode(data, form.channels, form.background).split()


def fit_planes(planes: Sequence[Any], form: Form) -> np.ndarray:
    """Channels as (C, H, W) of the form's type: resized until they cover what the form says, the centre cut out.

    A channel for opacity is data: it is resized as the others are, each on its own.
    """
    size = form.height, form.width
    return np.stack([np.asarray(resize_and_crop(plane, form.covered, size)) for plane in planes]).astype(form.dtype)


# --- 16 bits ---------------------------------------------------------------------------------------------------------


def bits_of(file: Path | BytesIO) -> int:
    """8 or 16, as the file's header says; 8 where it cannot be read: decoding then says why."""
    from PIL import Image

    try:
        if isinstance(file, Path) and not file.is_file():
            return 8
        with Image.open(file, formats=FORMATS) as image:
            return 16 if image.mode.startswith("I") or _deep_colours(image) else 8
    except Exception:  # as in `errors_say_why`
        return 8


def _deep_colours(image: Any) -> str | None:
    """Which of `DEEP_COLOURS` an opened image has, or None."""
    name = _rawmode(image.tile[0].args)[:-1] if image.tile else ""
    return name if name in DEEP_COLOURS else None


def _rawmode(args: Any) -> str:
    """Pillow's name of the pixels in a part of a file, from what it tells the decoder: the name or a tuple with it."""
    return str(args[0] if isinstance(args, tuple) and args else args)


def _deep_planes(data: bytes, form: Form) -> list[Any]:
    """The form's channels at 16 bits, each as a PIL image of whole numbers, before it is resized."""
    from PIL import Image

    values = _deep_values(data)
    if values is None:
        planes = decode(data, form.channels, form.background).split()
        values = np.stack([np.asarray(plane) for plane in planes]).astype(np.int64) * 257
    else:
        values = _deep_channels(values, form)
    return [Image.fromarray(plane.astype(np.int32)) for plane in values]


def _deep_values(data: bytes) -> np.ndarray | None:
    """An image of 16 bits, upright, as int64 (C, H, W): grey or RGB, with opacity after it if it has any; else None."""
    from PIL import ImageOps

    image = opened(data)
    key = image.info.get("transparency")
    if image.mode.startswith("I"):
        values = deep_grey(ImageOps.exif_transpose(image))[None]
    elif name := _deep_colours(image):
        values = _both_bytes(data, name)
    else:
        return None
    if key is None:
        return values
    transparent = (values == np.reshape(key, (-1, 1, 1))).all(axis=0, keepdims=True)
    return np.concatenate([values, np.where(transparent, 0, 65535)])


def _both_bytes(data: bytes, name: str) -> np.ndarray:
    """Colours of 16 bits, upright, as int64 (C, H, W).

    Pillow keeps the upper byte of each value. Told that the bytes come in the other order, it keeps the lower one.
    """
    from PIL import ImageOps

    if name == "LA;16":  # as many bits as RGBA of 8, which gives both bytes of both values at once
        image = opened(data)
        image.tile = [part._replace(args="RGBA") for part in image.tile]
        upper_grey, lower_grey, upper, lower = np.asarray(ImageOps.exif_transpose(image)).transpose(2, 0, 1)
        return np.stack([upper_grey, upper]).astype(np.int64) << 8 | np.stack([lower_grey, lower])
    upper_bytes, lower_bytes = opened(data), opened(data)
    lower_bytes.tile = [part._replace(args=_other_order(part.args)) for part in lower_bytes.tile]
    upper, lower = (np.asarray(ImageOps.exif_transpose(image)) for image in (upper_bytes, lower_bytes))
    return (upper.astype(np.int64) << 8 | lower).transpose(2, 0, 1)


def _other_order(args: Any) -> Any:
    """What to tell the decoder instead: L and B are orders of bytes, N is this machine's."""
    rawmode = _rawmode(args)
    others = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}
    other = rawmode[:-1] + others[rawmode[-1]]
    return (other, *args[1:]) if isinstance(args, tuple) else other


def _deep_channels(values: np.ndarray, form: Form) -> np.ndarray:
    """16-bit grey or RGB, with or without opacity, in the form's channels."""
    opacity = values[-1:] if len(values) in (2, 4) else None
    colours = values if opacity is None else values[:-1]
    if form.channels in (2, 4):
        check_opacity(form.channels, opacity=opacity is not None, grey=len(colours) == 1)
        assert opacity is not None
        return np.concatenate([colours.repeat(3, axis=0) if len(values) < form.channels else colours, opacity])
    if opacity is not None:
        below = 257 * np.array(form.background, dtype=np.int64).reshape(3, 1, 1)
        colours = (colours * opacity + below * (65535 - opacity) + 32767) // 65535
    if form.channels == 1:
        return luma(colours)[None] if len(colours) == 3 else colours
    return np.broadcast_to(colours, (3, *colours.shape[1:]))
