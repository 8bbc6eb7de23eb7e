"""One image file: what shows where it is transparent."""

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageDraw

from components.data.image_files import ImageFileError, decode, read_bytes

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def drawn_in_alpha(shape: str) -> Image.Image:
    """Black everywhere; only where the shape is, it is seen."""
    image = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    getattr(ImageDraw.Draw(image), shape)((4, 4, 27, 27), fill=(0, 0, 0, 255))
    return image


@pytest.mark.parametrize("channels", [1, 3])
def test_shapes_that_only_the_transparency_tells_apart_differ(channels):
    square, disc = (np.asarray(decode(encoded(drawn_in_alpha(s)), channels)) for s in ("rectangle", "ellipse"))
    assert (square[4:28, 4:28] == 0).all()
    assert (square[:4] == 255).all()
    assert (disc[16, 16] == 0).all()
    assert (disc[4, 4] == 255).all()


def test_colours_are_mixed_with_white_by_their_opacity():
    alpha = RNG.integers(0, 256, (6, 8), dtype=np.uint8)
    image = Image.fromarray(np.dstack([COLOURS, alpha]))
    share = alpha[..., None] / 255
    expected = COLOURS * share + 255 * (1 - share)
    for kind, options in (("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True, "exact": True})):
        assert np.abs(np.asarray(decode(encoded(image, kind, **options), 3)) - expected).max() <= 1, kind
    grey = Image.fromarray(np.dstack([COLOURS[..., 0], alpha]), "LA")
    expected_grey = COLOURS[..., 0] * share[..., 0] + 255 * (1 - share[..., 0])
    assert np.abs(np.asarray(decode(encoded(grey), 1)) - expected_grey).max() <= 1


def png(depth: int, colour_type: int, row: bytes, width: int, transparent: bytes) -> bytes:
    """A PNG of one row, in which one value or colour stands for transparency."""
    header = struct.pack(">IIBBBBB", width, 1, depth, colour_type, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"tRNS", transparent), (b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b"")]
    packed = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def test_a_colour_that_stands_for_transparency_is_white():
    grey = png(8, 0, bytes([0, 9]), 2, struct.pack(">H", 9))
    deep = png(16, 0, struct.pack(">4H", 0, 1000, 30000, 1001), 4, struct.pack(">H", 1000))
    colour = png(8, 2, bytes([0, 0, 0, 9, 8, 7]), 2, struct.pack(">3H", 9, 8, 7))
    deep_colour = png(16, 2, struct.pack(">6H", 0, 0, 0, 60000, 1000, 9), 2, struct.pack(">3H", 60000, 1000, 9))
    palette = encoded(drawn_in_alpha("ellipse").quantize(4), "GIF", transparency=0)
    assert np.asarray(decode(grey, 1)).tolist() == [[0, 255]]
    assert np.asarray(decode(deep, 1)).tolist() == [[0, 255, 117, 4]]
    assert np.asarray(decode(colour, 3)).tolist() == [[[0, 0, 0], [255, 255, 255]]]
    assert np.asarray(decode(deep_colour, 3)).tolist() == [[[0, 0, 0], [255, 255, 255]]]
    assert 255 in np.asarray(decode(palette, 1))


@pytest.mark.parametrize(
    ("depth", "row", "values"),
    [(1, 0b01000000, [0, 255]), (2, 0b00011011, [0, 85, 170, 255]), (4, 0x37, [51, 119])],
)
def test_a_grey_that_stands_for_transparency_is_white_at_every_depth(depth, row, values):
    step = 255 // (2**depth - 1)
    for hidden in values:
        image = decode(png(depth, 0, bytes([row]), len(values), struct.pack(">H", hidden // step)), 1)
        assert np.asarray(image).tolist() == [[255 if value == hidden else value for value in values]], hidden


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "LA", "RGBA"])
def test_an_opaque_image_is_converted_as_it_is(mode, channels):
    image = Image.fromarray(COLOURS).convert(mode)
    kind = "TIFF" if mode == "CMYK" else "PNG"
    plain = image.convert("L" if channels == 1 else "RGB")
    assert np.array_equal(np.asarray(decode(encoded(image, kind), channels)), np.asarray(plain))


def test_a_file_that_is_none_says_why(tmp_path):
    with pytest.raises(ImageFileError, match="no such file"):
        read_bytes(tmp_path / "a.png")
    with pytest.raises(ImageFileError, match="not an image of a known format"):
        decode(b"hello", 3)
