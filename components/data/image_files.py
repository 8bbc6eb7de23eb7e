"""One image file: decode it defensively at 8 bits, turn it upright, resize it. For 16 bits see `picture_forms`."""

from collections.abc import Iterator
from contextlib import contextmanager
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
USUAL_COVER, USUAL_SIZE = (256, 256), (224, 224)
"""Height and width that a picture is resized to cover, and those that are cut out: the usual view of ImageNet, and of
all files that are decoded when they are needed."""


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
def errors_say_why() -> Iterator[None]:
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


def opened(data: bytes) -> Any:
    """The image's header, its size checked; nothing is decoded yet."""
    from PIL import Image

    image: Any = Image.open(BytesIO(data), formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        raise ImageFileError(f"{image.width}x{image.height} pixels, more than {MAX_PIXELS} in all")
    if max(image.size) > MAX_ASPECT * min(image.size):
        raise ImageFileError(f"{image.width}x{image.height} pixels, more than {MAX_ASPECT} times as long as wide")
    return image


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

    with errors_say_why():
        image = opened(data)
        _widen_transparent_grey(image)
        image = ImageOps.exif_transpose(image)
        if channels in (1, 3):
            image = _to_8_bits(_on(background, image), background)
            return image.convert("L" if channels == 1 else "RGB")
        check_opacity(channels, opacity=image.has_transparency_data, grey=image.mode in ("1", "L", "LA", "La"))
        _cut_key_to_8_bits(image)
        return image.convert("LA" if channels == 2 else "RGBA")


def check_opacity(channels: int, *, opacity: bool, grey: bool) -> None:
    if not opacity:
        raise ImageFileError(f"no opacity, which images of {channels} channels (prepare.channels) need")
    if channels == 2 and not grey:
        raise ImageFileError("colours, but images of 2 channels (prepare.channels) are grey and opacity")


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
    values = deep_grey(image)
    grey = ((values * 255 + 32767) // 65535).astype(np.uint8)
    if image.has_transparency_data:  # one 16-bit value marks the transparent pixels
        grey[values == image.info["transparency"]] = luma(np.array(background))
    return Image.fromarray(grey)


def deep_grey(image: Any) -> np.ndarray:
    """int64 (H, W)."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ImageFileError("pixels outside 16 bits")
    return values


def luma(colours: np.ndarray) -> np.ndarray:
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
