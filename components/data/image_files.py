"""One image file: decode it defensively, turn it upright, bring it to the channels, the depth and the size of its set.

A set has one depth, that of its deepest picture: 16 bits if any has 16, else 8. Beside one of 16 bits, a picture of 8
bits is widened exactly: its values times 257, so that white is 65535.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
"""The formats that are read. Pillow knows others, some of which start programs or fetch files."""
MAX_FILE_BYTES = 2**28
MAX_PIXELS = 2**26
"""8192x8192. A few bytes can claim any size, so larger images are refused before they are decoded."""
MAX_ASPECT = 100
"""Longer side over shorter side; the shorter side decides the size of the whole resized image."""


WHITE = (255, 255, 255)
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

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.height, self.width

    @property
    def max_value(self) -> int:
        return int(2**self.bits - 1)

    @property
    def dtype(self) -> Any:
        return np.uint16 if self.bits == 16 else np.uint8


class ImageFileError(ValueError):
    """A file that cannot be used as an image; says why, not which."""


def read_bytes(path: Path) -> bytes:
    """Raises ImageFileError when the file is missing, unreadable, empty, too large or no plain file."""
    try:
        if not path.is_file():
            raise ImageFileError("not a plain file" if path.exists() else "no such file")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ImageFileError(f"larger than {MAX_FILE_BYTES >> 20} MiB")
        data = path.read_bytes()
    except OSError as error:
        raise ImageFileError(f"cannot be read: {error.strerror}") from None
    if not data:
        raise ImageFileError("empty file")
    return data


@contextmanager
def _errors_say_why() -> Iterator[None]:
    """Turn what Pillow raises into ImageFileError."""
    from PIL import UnidentifiedImageError

    try:
        yield
    except ImageFileError:
        raise
    except UnidentifiedImageError:
        raise ImageFileError(f"not an image of a known format ({', '.join(FORMATS)})") from None
    except Exception as error:  # corrupt bytes raise nearly any error in Pillow's decoders
        raise ImageFileError(" ".join(f"{error}".split()) or type(error).__name__) from None


def _opened(data: bytes) -> Any:
    """The image's header, its size checked; nothing is decoded yet."""
    from PIL import Image

    image: Any = Image.open(BytesIO(data), formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        raise ImageFileError(f"{image.width}x{image.height} pixels, more than {MAX_PIXELS} in all")
    if max(image.size) > MAX_ASPECT * min(image.size):
        raise ImageFileError(f"{image.width}x{image.height} pixels, more than {MAX_ASPECT} times as long as wide")
    return image


def read_picture(data: bytes, form: Form) -> np.ndarray:
    """An image file as (C, H, W) of the form's type: resized until it covers the form's size, its centre cut out.

    A channel for opacity is data: it is resized as the others are, each on its own.

    Raises:
        ImageFileError: as `decode`, or the picture does not have the channels for opacity that the form has.
    """
    size = form.height, form.width
    with _errors_say_why():
        planes = _deep_planes(data, form) if form.bits == 16 else decode(data, form.channels, form.background).split()
        pixels = [np.asarray(resize_and_crop(plane, size, size)) for plane in planes]
    return np.stack(pixels).astype(form.dtype)


def decode(data: bytes, channels: int, background: tuple[int, int, int] = WHITE) -> Any:
    """An image file's first frame, upright, as a PIL image of 8 bits: L, LA, RGB or RGBA for 1, 2, 3 or 4 channels.

    16-bit grey is scaled: 65535 becomes 255. Transparent pixels are blended onto the background, whatever colour the
    file stores there, so that a shape that is drawn only by transparency stays visible; 2 and 4 channels keep the
    opacity as the file has it.

    Raises:
        ImageFileError: not an image of a known format, truncated, corrupt, or unreasonably large; or no opacity in the
            file where there is a channel for it, or colours where there is none for them.
    """
    from PIL import ImageOps

    with _errors_say_why():
        image = _opened(data)
        _widen_transparent_grey(image)
        image = ImageOps.exif_transpose(image)
        if channels in (1, 3):
            image = _to_8_bits(_on(background, image), background)
            return image.convert("L" if channels == 1 else "RGB")
        _check_opacity(channels, opacity=image.has_transparency_data, grey=image.mode in ("1", "L", "LA", "La"))
        _cut_key_to_8_bits(image)
        return image.convert("LA" if channels == 2 else "RGBA")


def _check_opacity(channels: int, *, opacity: bool, grey: bool) -> None:
    if not opacity:
        raise ImageFileError(f"no opacity, which prepare.channels {channels} needs in each picture")
    if channels == 2 and not grey:
        raise ImageFileError("colours, but prepare.channels 2 is grey and opacity")


def _widen_transparent_grey(image: Any) -> None:
    """The library turns a PNG's grey of 2 and 4 bits into 8, but not the value that stands for transparency."""
    rawmode = image.tile[0][3] if image.format == "PNG" and image.tile else None
    if rawmode in ("L;2", "L;4") and "transparency" in image.info:
        most = 2 ** int(rawmode[-1]) - 1
        image.info["transparency"] = (image.info["transparency"] & most) * (255 // most)


def _on(background: tuple[int, int, int], image: Any) -> Any:
    """The image blended onto a background; unchanged if nothing is transparent."""
    from PIL import Image

    if not image.has_transparency_data or image.mode.startswith("I"):
        return image
    _cut_key_to_8_bits(image)
    layer = image.convert("RGBA")
    if layer.getchannel("A").getextrema()[0] == 255:
        return image
    return Image.alpha_composite(Image.new("RGBA", layer.size, background), layer).convert("RGB")


def _cut_key_to_8_bits(image: Any) -> None:
    """The colour that stands for transparency is in the file's depth; Pillow has cut 16 bits to the upper 8."""
    key = image.info.get("transparency")
    if isinstance(key, tuple):
        image.info["transparency"] = tuple(value >> 8 if max(key) > 255 else value for value in key)


def _to_8_bits(image: Any, background: tuple[int, int, int]) -> Any:
    from PIL import Image

    if image.mode == "F":
        raise ImageFileError("floating-point pixels: convert it to 8 or 16 bits")
    if not image.mode.startswith("I"):
        return image
    values = _deep_grey(image)
    grey = ((values * 255 + 32767) // 65535).astype(np.uint8)
    if image.has_transparency_data:  # one 16-bit value marks the transparent pixels
        grey[values == image.info["transparency"]] = _grey(np.array(background))
    return Image.fromarray(grey)


# --- 16 bits ---------------------------------------------------------------------------------------------------------


def bits_of(path: Path) -> int:
    """8 or 16, as the file's header says; 8 where it cannot be read: decoding then says why."""
    from PIL import Image

    try:
        if not path.is_file():
            return 8
        with Image.open(path, formats=FORMATS) as image:
            return 16 if image.mode.startswith("I") or _deep_colours(image) else 8
    except Exception:  # as in `_errors_say_why`
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

    image = _opened(data)
    key = image.info.get("transparency")
    if image.mode.startswith("I"):
        values = _deep_grey(ImageOps.exif_transpose(image))[None]
    elif name := _deep_colours(image):
        values = _both_bytes(data, name)
    else:
        return None
    if key is None:
        return values
    transparent = (values == np.reshape(key, (-1, 1, 1))).all(axis=0, keepdims=True)
    return np.concatenate([values, np.where(transparent, 0, 65535)])


def _deep_grey(image: Any) -> np.ndarray:
    """int64 (H, W)."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ImageFileError("pixels outside 16 bits")
    return values


def _both_bytes(data: bytes, name: str) -> np.ndarray:
    """Colours of 16 bits, upright, as int64 (C, H, W).

    Pillow keeps the upper byte of each value. Told that the bytes come in the other order, it keeps the lower one.
    """
    from PIL import ImageOps

    if name == "LA;16":  # as many bits as RGBA of 8, which gives both bytes of both values at once
        image = _opened(data)
        image.tile = [part._replace(args="RGBA") for part in image.tile]
        upper_grey, lower_grey, upper, lower = np.asarray(ImageOps.exif_transpose(image)).transpose(2, 0, 1)
        return np.stack([upper_grey, upper]).astype(np.int64) << 8 | np.stack([lower_grey, lower])
    upper_bytes, lower_bytes = _opened(data), _opened(data)
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
        _check_opacity(form.channels, opacity=opacity is not None, grey=len(colours) == 1)
        assert opacity is not None
        return np.concatenate([colours.repeat(3, axis=0) if len(values) < form.channels else colours, opacity])
    if opacity is not None:
        below = 257 * np.array(form.background, dtype=np.int64).reshape(3, 1, 1)
        colours = (colours * opacity + below * (65535 - opacity) + 32767) // 65535
    if form.channels == 1:
        return _grey(colours)[None] if len(colours) == 3 else colours
    return np.broadcast_to(colours, (3, *colours.shape[1:]))


def _grey(colours: np.ndarray) -> np.ndarray:
    """The luma of RGB, as Pillow weighs and rounds it (ITU-R 601-2)."""
    red, green, blue = colours.astype(np.int64)
    return (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16


# --- sizes -----------------------------------------------------------------------------------------------------------


def resize_and_crop(image: Any, cover: tuple[int, int], crop: tuple[int, int]) -> Any:
    """Resize until the image just covers one size, and cut another out of its centre: the usual test view of an image.

    Args:
        cover, crop: height and width.
    """
    from PIL import Image

    width, height = image.size
    if width * cover[0] <= height * cover[1]:
        size = (cover[1], cover[1] * height // width)
    else:
        size = (cover[0] * width // height, cover[0])
    left, top = (round((side - part) / 2) for side, part in zip(size, crop[::-1], strict=True))
    return image.resize(size, Image.Resampling.BILINEAR).crop((left, top, left + crop[1], top + crop[0]))


def to_array(image: Any) -> np.ndarray:
    """uint8 (C, H, W)."""
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def decoder_version() -> str:
    """The versions of Pillow and its JPEG decoder: decoded pixels depend on them and on the file."""
    import PIL
    from PIL import features

    return f"pillow {PIL.__version__}, libjpeg-turbo {features.version('libjpeg_turbo')}"
