"""What a picture becomes: channels, opacity and background, depth, and sizes that are no squares."""

import struct
import zlib
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from components.data.image_files import ImageFileError, decode
from components.data.picture_forms import USUAL_VIEW, Form, bits_of, form_of, read_picture
from components.data.prepared import Description, load_split, prepare, save_split, whole_pixels
from components.data.sources.source import Source
from tests.support.image_folders import gradient, read, save

RNG = np.random.default_rng(0)
DEEP = RNG.integers(0, 65536, (6, 8, 4), dtype=np.uint16)
SHAPE = 6, 8
COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
"""Of a PNG, by its channels."""


def png(values: np.ndarray, extra: bytes = b"") -> bytes:
    """A PNG of the values' depth, every row predicted from the one above; `extra` is the contents of tRNS."""
    height, width, channels = values.shape
    rows = values.astype(values.dtype.newbyteorder(">")).reshape(height, -1).view(np.uint8)
    up = np.diff(np.vstack([np.zeros_like(rows[:1]), rows]).astype(int), axis=0).astype(np.uint8)
    lines = b"".join(b"\2" + row.tobytes() for row in up)
    header = struct.pack(">IIBBBBB", width, height, 8 * values.itemsize, COLOUR_TYPES[channels], 0, 0, 0)
    chunks = [
        (b"IHDR", header),
        *([(b"tRNS", extra)] if extra else []),
        (b"IDAT", zlib.compress(lines)),
        (b"IEND", b""),
    ]
    packed = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def tiff(values: np.ndarray, order: str, compressed: bool = False) -> bytes:
    """A TIFF of 16 bits in one strip; `order` is II or MM."""
    height, width, channels = values.shape
    end = "<" if order == "II" else ">"
    strip = values.astype(f"{end}u2").tobytes()
    strip = zlib.compress(strip) if compressed else strip
    tags = [(256, 3, [width]), (257, 3, [height]), (258, 3, [16] * channels), (259, 3, [8 if compressed else 1])]
    tags += [(262, 3, [2 if channels > 2 else 1]), (273, 4, [8]), (277, 3, [channels]), (278, 3, [height])]
    tags += [(279, 4, [len(strip)])] + ([(338, 3, [2])] if channels == 4 else [])
    far, entries, offset = b"", b"", 8 + len(strip) + len(strip) % 2
    for tag, kind, numbers in tags:
        packed = struct.pack(f"{end}{len(numbers)}{'H' if kind == 3 else 'I'}", *numbers)
        if len(packed) > 4:
            packed, far = struct.pack(f"{end}I", offset + len(far)), far + packed
        entries += struct.pack(f"{end}HHI", tag, kind, len(numbers)) + packed.ljust(4, b"\0")
    directory = struct.pack(f"{end}H", len(tags)) + entries + b"\0" * 4
    start = order.encode() + struct.pack(f"{end}HI", 42, offset + len(far))
    return start + strip.ljust(offset - 8, b"\0") + far + directory


def as_it_is(data: bytes, channels: int, bits: int = 16, **form: object) -> np.ndarray:
    return read_picture(data, Form(channels, *SHAPE, bits=bits, **form))


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


# --- 16 bits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_png_of_16_bits_keeps_every_bit(tmp_path, channels):
    data = png(DEEP[..., :channels])
    (tmp_path / "a.png").write_bytes(data)
    assert bits_of(tmp_path / "a.png") == 16
    assert np.array_equal(as_it_is(data, channels), DEEP[..., :channels].transpose(2, 0, 1))
    assert as_it_is(data, channels).dtype == np.uint16


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("order", ["II", "MM"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_tiff_of_16_bits_keeps_every_bit(tmp_path, channels, order, compressed):
    data = tiff(DEEP[..., :channels], order, compressed)
    (tmp_path / "a.tif").write_bytes(data)
    assert bits_of(tmp_path / "a.tif") == 16
    assert np.array_equal(as_it_is(data, channels), DEEP[..., :channels].transpose(2, 0, 1))


def test_deep_pictures_are_turned_as_their_exif_says():
    exif = Image.Exif()
    exif[0x0112] = 6
    for channels in (1, 3):
        plain = png(np.rot90(DEEP[..., :channels]).copy())
        chunk = exif.tobytes()[6:]
        chunk = struct.pack(">I", len(chunk)) + b"eXIf" + chunk + struct.pack(">I", zlib.crc32(b"eXIf" + chunk))
        turned = plain[:33] + chunk + plain[33:]  # behind the header
        assert np.array_equal(as_it_is(turned, channels), DEEP[..., :channels].transpose(2, 0, 1))


def test_beside_a_picture_of_16_bits_one_of_8_is_widened_exactly():
    grey = RNG.integers(0, 256, SHAPE, dtype=np.uint8)
    data = encoded(Image.fromarray(grey))
    assert np.array_equal(as_it_is(data, 1), grey[None] * np.uint16(257))
    assert np.array_equal(as_it_is(data, 3), np.stack([grey] * 3) * np.uint16(257))


def test_the_set_has_the_depth_of_its_deepest_picture(tmp_path):
    for name in "ab":
        for i in range(4):
            save(tmp_path / f"{name}/{i}.png", gradient(16, 16)[..., 0] // (i + 1), "L")
    assert (read(tmp_path, channels=1).max_value, read(tmp_path, channels=1).images.dtype) == (255, np.uint8)
    eight = read(tmp_path, channels=1).images
    save(tmp_path / "b/4.png", DEEP[..., 0], "I;16")
    deep = read(tmp_path, channels=1)
    assert (deep.max_value, deep.images.dtype) == (65535, np.uint16)
    assert np.array_equal(deep.images[:8], eight.astype(np.uint16) * 257)


def test_grey_and_colours_of_16_bits_become_each_other_as_those_of_8_do():
    grey, colours = as_it_is(png(DEEP[..., :1]), 3), as_it_is(png(DEEP[..., :3]), 1)
    assert np.array_equal(grey, np.stack([DEEP[..., 0]] * 3))
    assert np.abs(colours[0] - DEEP[..., :3].astype(float) @ [0.299, 0.587, 0.114]).max() <= 1
    upper = (DEEP[..., :3] >> 8).astype(np.uint8)
    assert np.array_equal(as_it_is(png(upper), 1), decode_grey(upper) * np.uint16(257))


def decode_grey(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(decode(encoded(Image.fromarray(pixels)), 1))[None]


def test_a_deep_picture_is_resized_as_one_of_8_bits_is():
    pixels = gradient(64, 48)
    form = Form(3, 16, 20)
    eight = read_picture(encoded(Image.fromarray(pixels)), form)
    deep = read_picture(png(pixels.astype(np.uint16) * 257), replace(form, bits=16))
    assert np.abs(deep / 257 - eight).max() <= 0.5 + 1 / 257


def test_pixels_beyond_16_bits_are_refused():
    data = encoded(Image.fromarray(np.array([[1, 70000]], dtype=np.int32)), "TIFF")
    with pytest.raises(ImageFileError, match="pixels outside 16 bits"):
        read_picture(data, Form(1, 8, 8, bits=16))


def test_torn_deep_pictures_say_why():
    for whole in (png(DEEP[..., :3]), png(DEEP[..., :2]), tiff(DEEP[..., :3], "II")):
        with pytest.raises(ImageFileError):
            as_it_is(whole[: len(whole) // 2], 3)


# --- opacity ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("background", [(0, 0, 0), (255, 255, 255), (200, 30, 7)])
def test_what_is_transparent_shows_the_background(bits, background):
    values = DEEP if bits == 16 else (DEEP >> 8).astype(np.uint8)
    most = 2**bits - 1
    share = values[..., 3:] / most
    expected = values[..., :3] * share + np.array(background) * (most // 255) * (1 - share)
    found = as_it_is(png(values), 3, bits, background=background)
    assert np.abs(found.transpose(1, 2, 0) - expected).max() <= 1
    grey = as_it_is(png(values), 1, bits, background=background)[0]
    assert np.abs(grey - expected @ [0.299, 0.587, 0.114]).max() <= 2


def test_the_background_is_white_where_nothing_is_said(tmp_path):
    save(tmp_path / "a/0.png", np.zeros((16, 16, 4), dtype=np.uint8), "RGBA")
    save(tmp_path / "b/0.png", gradient(16, 16))
    assert read(tmp_path).images[0].min() == 255
    assert read(tmp_path, background=0).images[0].max() == 0
    assert read(tmp_path, background=[9, 8, 7]).images[0, :, 3, 3].tolist() == [9, 8, 7]
    assert read(tmp_path, background=[9, 8, 7], channels=1).images[0, 0, 3, 3] == 8


def test_a_deep_value_that_stands_for_transparency_shows_the_background():
    grey = np.array([[[0], [1000], [1001]]], dtype=np.uint16)
    data = png(grey.repeat(3, axis=0), struct.pack(">H", 1000))
    assert read_picture(data, Form(1, 3, 3, (7, 7, 7), 16))[0, 0].tolist() == [0, 7 * 257, 1001]
    assert read_picture(data, Form(2, 3, 3, bits=16))[:, 0].tolist() == [[0, 1000, 1001], [65535, 0, 65535]]
    assert np.asarray(decode(data, 1, (7, 7, 7)))[0].tolist() == [0, 7, 4]
    colours = np.array([[[1, 2, 3], [1, 2, 4], [300, 2, 3]]], dtype=np.uint16).repeat(3, axis=0)
    found = read_picture(png(colours, struct.pack(">3H", 1, 2, 3)), Form(3, 3, 3, (7, 8, 9), 16))
    assert found[:, 0].T.tolist() == [[7 * 257, 8 * 257, 9 * 257], [1, 2, 4], [300, 2, 3]]


@pytest.mark.parametrize("bits", [8, 16])
def test_opacity_as_a_channel_is_data(bits):
    values = DEEP if bits == 16 else (DEEP >> 8).astype(np.uint8)
    for channels in (2, 4):
        kept = values[..., :channels]
        assert np.array_equal(as_it_is(png(kept), channels, bits), kept.transpose(2, 0, 1))
    hidden = values.copy()
    hidden[..., 3] = 0
    assert np.array_equal(as_it_is(png(hidden), 4, bits)[:3], values[..., :3].transpose(2, 0, 1)), "hidden colours too"
    widened = as_it_is(png(values[..., :2]), 4, bits)
    assert np.array_equal(widened, values[..., [0, 0, 0, 1]].transpose(2, 0, 1))


def test_each_channel_is_resized_on_its_own():
    """A colour that is hidden does not fade, as it does where opacity is no data."""
    pixels = np.zeros((32, 32, 4), dtype=np.uint8)
    pixels[..., 0], pixels[:, ::2, 3] = 90, 255
    found = read_picture(png(pixels), Form(4, 8, 8))
    assert (found[0] == 90).all()
    assert np.abs(found[3, 2:6, 2:6].astype(int) - 127).max() <= 3


@pytest.mark.parametrize("bits", [8, 16])
def test_pictures_without_the_channels_that_are_asked_for_are_refused(bits):
    values = DEEP if bits == 16 else (DEEP >> 8).astype(np.uint8)
    for channels, has in ((2, 1), (2, 3), (4, 1), (4, 3)):
        with pytest.raises(ImageFileError, match=f"no opacity, which images of {channels} channels"):
            as_it_is(png(values[..., :has]), channels, bits)
    with pytest.raises(ImageFileError, match=r"colours, but images of 2 channels .* are grey and opacity"):
        as_it_is(png(values), 2, bits)


def test_files_without_opacity_are_named(tmp_path):
    save(tmp_path / "a/0.png", gradient(16, 16), "RGBA")
    save(tmp_path / "b/0.png", gradient(16, 16))
    with pytest.raises(ValueError, match=r"1 file\(s\) .* b/0.png \(no opacity, which images of 4 channels"):
        read(tmp_path, channels=4)


# --- sizes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "height"), [(96, 64), (64, 96), (120, 64), (97, 33), (48, 32), (9, 9)])
def test_an_image_covers_its_size_and_its_centre_is_kept(width, height):
    found = read_picture(encoded(Image.fromarray(gradient(width, height))), Form(3, 32, 48))
    assert found.shape == (3, 32, 48)
    red, green, _ = found.astype(int)
    scale = max(48 / width, 32 / height)
    for values, size, whole in ((red.mean(0), 48, width), (green.mean(1), 32, height)):
        share = size / (whole * scale)
        assert abs(values.mean() - 127.5) < 8
        assert abs((values.max() - values.min()) / 255 - share) < 0.12


def test_a_square_is_what_it_was_before():
    """The shorter side is resized, and the middle of the longer one is kept, as in earlier results."""
    for width, height in ((37, 91), (91, 37), (64, 64), (33, 32)):
        image = Image.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8))
        size = (16, int(16 * height / width)) if width <= height else (int(16 * width / height), 16)
        left, top = (round((side - 16) / 2) for side in size)
        expected = image.resize(size, Image.Resampling.BILINEAR).crop((left, top, left + 16, top + 16))
        found = read_picture(encoded(image), Form(3, 16, 16))
        assert np.array_equal(found, np.asarray(expected).transpose(2, 0, 1))


# --- the rule, for whoever has a picture later -----------------------------------------------------------------------


def test_the_description_says_how_pictures_became_the_images(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(2):
            (tmp_path / name / f"{i}.png").write_bytes(png(RNG.integers(0, 65536, (16, 16, 3), dtype=np.uint16)))
    source = read(tmp_path, test_share=0.5, image_size=[12, 16], channels=1, background=[1, 2, 3])
    *_, description = prepare(source, "image_folder", test_share=0.5, enlarge=None, seed=0)
    assert description.pictures == {"cover": [12, 16], "background": [1, 2, 3], "bits": 16}
    form = form_of(description.image_shape, description.pictures)
    assert form == replace(source.form, cover=(12, 16))
    data = (tmp_path / "a/0.png").read_bytes()
    assert np.array_equal(read_picture(data, form), source.images[0])
    assert form_of(list(USUAL_VIEW.shape), USUAL_VIEW.rule) == USUAL_VIEW


def test_images_that_were_no_pictures_have_no_rule_and_the_identity_of_before():
    *_, description = prepare(source_of(RNG.integers(0, 9, (4, 1, 8, 8)), 16), "d", test_share=0.5, enlarge=2, seed=0)
    assert description.pictures is None
    digits = Description("digits", "", ["0", "1"], [1, 16, 16], 16, None, None, 2, 2, "", "")
    before = "f84e1d3c90ed0148bf9d19dc2fa406b4fa051e4e56b3aa154f807ac08c208545"
    assert digits.sha256 == replace(digits, pictures=USUAL_VIEW.rule).sha256 == before


# --- arrays ----------------------------------------------------------------------------------------------------------


def source_of(images: np.ndarray, max_value: int) -> Source:
    return Source(images, np.arange(len(images)) % 2, ["a", "b"], max_value, "arrays")


@pytest.mark.parametrize("dtype", [np.uint16, np.int64, np.float64])
def test_arrays_of_any_number_of_channels_and_16_bits_are_prepared_as_they_are(tmp_path, dtype):
    images = RNG.integers(0, 65536, (12, 7, 4, 6)).astype(dtype)
    train, test, description = prepare(source_of(images, 65535), "arrays", test_share=0.25, enlarge=None, seed=0)
    assert (description.image_shape, description.max_value) == ([7, 4, 6], 65535)
    assert train.images.dtype == np.uint16
    assert sorted(np.concatenate([train.images, test.images]).sum(axis=(1, 2, 3))) == sorted(images.sum(axis=(1, 2, 3)))
    save_split(train, tmp_path)
    loaded = load_split(tmp_path)
    assert np.array_equal(loaded.images, train.images)
    assert loaded.sha256 == train.sha256 == description.train_sha256


@pytest.mark.parametrize(
    ("dtype", "bad", "max_value"), [(np.uint16, 256, 255), (float, 4096, 4095), (float, -1, 65535)]
)
def test_pixels_outside_their_range_are_refused_by_row(dtype, bad, max_value):
    images = np.zeros((5, 1, 2, 2), dtype=dtype)
    images[3, 0, 1, 1] = bad
    with pytest.raises(ValueError, match=rf"whole numbers in \[0, {max_value}\] in 1 image\(s\), rows 3:"):
        whole_pixels(images, max_value, "arrays")


def test_more_than_16_bits_are_refused():
    with pytest.raises(ValueError, match=r"arrays: the pixel value 65536 stands for 1\.0, but 16 bits hold 65535"):
        prepare(source_of(np.zeros((4, 1, 2, 2)), 65536), "arrays", test_share=0.5, enlarge=None, seed=0)
