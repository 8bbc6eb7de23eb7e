"""One image file: decode it defensively, turn it upright, bring it to 8 bits and to a fixed size."""

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


def decode(data: bytes, channels: int) -> Any:
    """An image file's first frame, upright, as a PIL image of 8 bits: grey for one channel, RGB for three.

    16-bit grey is scaled: 65535 becomes 255. Transparent pixels are blended onto white, whatever colour the file stores
    there; a shape that is drawn only by transparency stays visible.

    Raises:
        ImageFileError: not an image of a known format, truncated, corrupt, or unreasonably large.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        image: Any = Image.open(BytesIO(data), formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise ImageFileError(f"{image.width}x{image.height} pixels, more than {MAX_PIXELS} in all")
        if max(image.size) > MAX_ASPECT * min(image.size):
            raise ImageFileError(f"{image.width}x{image.height} pixels, more than {MAX_ASPECT} times as long as wide")
        _widen_transparent_grey(image)
        image = _to_8_bits(_on_white(ImageOps.exif_transpose(image)))
        return image.convert("L" if channels == 1 else "RGB")
    except ImageFileError:
        raise
    except UnidentifiedImageError:
        raise ImageFileError(f"not an image of a known format ({', '.join(FORMATS)})") from None
    except Exception as error:  # corrupt bytes raise nearly any error in Pillow's decoders
        raise ImageFileError(" ".join(f"{error}".split()) or type(error).__name__) from None


def _widen_transparent_grey(image: Any) -> None:
    """The library turns a PNG's grey of 2 and 4 bits into 8, but not the value that stands for transparency."""
    rawmode = image.tile[0][3] if image.format == "PNG" and image.tile else None
    if rawmode in ("L;2", "L;4") and "transparency" in image.info:
        most = 2 ** int(rawmode[-1]) - 1
        image.info["transparency"] = (image.info["transparency"] & most) * (255 // most)


def _on_white(image: Any) -> Any:
    """The image blended onto white; unchanged if nothing is transparent."""
    from PIL import Image

    if not image.has_transparency_data or image.mode.startswith("I"):
        return image
    key = image.info.get("transparency")
    if isinstance(key, tuple):  # a colour in the file's depth; Pillow has cut 16 bits to the upper 8
        image.info["transparency"] = tuple(value >> 8 if max(key) > 255 else value for value in key)
    layer = image.convert("RGBA")
    if layer.getchannel("A").getextrema()[0] == 255:
        return image
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def _to_8_bits(image: Any) -> Any:
    from PIL import Image

    if image.mode == "F":
        raise ImageFileError("floating-point pixels: convert it to 8 or 16 bits")
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ImageFileError("pixels outside 16 bits")
    grey = ((values * 255 + 32767) // 65535).astype(np.uint8)
    if image.has_transparency_data:  # one 16-bit value marks the transparent pixels
        grey[values == image.info["transparency"]] = 255
    return Image.fromarray(grey)


def resize_and_crop(image: Any, shorter_side: int, crop: int) -> Any:
    """Resize the shorter side, then cut out the central square of side `crop`: the usual test view of an image."""
    from PIL import Image

    width, height = image.size
    if width <= height:
        size = (shorter_side, int(shorter_side * height / width))
    else:
        size = (int(shorter_side * width / height), shorter_side)
    left, top = (round((side - crop) / 2) for side in size)
    return image.resize(size, Image.Resampling.BILINEAR).crop((left, top, left + crop, top + crop))


def to_array(image: Any) -> np.ndarray:
    """uint8 (C, H, W)."""
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def decoder_version() -> str:
    """The versions of Pillow and its JPEG decoder: decoded pixels depend on them and on the file."""
    import PIL
    from PIL import features

    return f"pillow {PIL.__version__}, libjpeg-turbo {features.version('libjpeg_turbo')}"
