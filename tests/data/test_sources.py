"""Every source on small real files made here, whole and spoilt."""

import gzip
import io
import os
import pickle
import shutil
import struct
import tarfile
import threading
import zlib
from functools import partial
from hashlib import md5
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import CIFAR10, MNIST

from components import params
from components.data.prepared import prepare
from components.data.sources import FileSource, cifar10, class_folders, image_folder, imagenet, mnist
from components.data.sources import archive as archive_module
from components.params import Prepare
from pipelines import artifacts
from pipelines import prepare as stage

ROOT = Path(__file__).parents[2]
RNG = np.random.default_rng(0)


# --- MNIST -------------------------------------------------------------------------------------------------------


def write_idx(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    path.write_bytes(header + values.astype(np.uint8).tobytes())


@pytest.fixture
def mnist_root(tmp_path):
    """Forty and twenty random images as the four files of MNIST."""
    for name, count in (("train", 40), ("t10k", 20)):
        write_idx(tmp_path / f"MNIST/raw/{name}-images-idx3-ubyte", RNG.integers(0, 256, (count, 28, 28)))
        write_idx(tmp_path / f"MNIST/raw/{name}-labels-idx1-ubyte", np.arange(count) % 10)
    return tmp_path


def test_mnist_is_read_as_its_files_have_it(mnist_root):
    source = mnist(mnist_root, download=False)
    pixels = (mnist_root / "MNIST/raw/t10k-images-idx3-ubyte").read_bytes()[16:]
    assert source.images.shape == (40, 1, 28, 28)
    assert source.test[0].tobytes() == pixels
    assert source.test[1].tolist() == [*range(10)] * 2
    train, test, description = prepare(source, "mnist", test_share=None, enlarge=None, seed=0)
    assert (len(train), len(test)) == (description.train_images, description.test_images) == (40, 20)
    assert np.array_equal(train.images, source.images)
    assert (description.max_value, description.mean, description.image_shape) == (255, None, [1, 28, 28])
    assert str(mnist_root) not in str(description), "the identity is the same on every machine"


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "No such file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "bytes instead of"),
        (lambda path: path.write_bytes(path.read_bytes() + b"0"), "bytes instead of"),
        (lambda path: path.write_bytes(b""), "is no idx file of bytes"),
        (lambda path: path.write_bytes(gzip.compress(path.read_bytes())), "is no idx file of bytes"),
    ],
    ids=["missing", "truncated", "too long", "empty", "still packed"],
)
def test_a_spoilt_file_of_mnist_is_named(mnist_root, name, damage, message):
    path = mnist_root / "MNIST/raw" / name
    damage(path)
    with pytest.raises(ValueError, match=message) as refusal:
        mnist(mnist_root, download=False)
    assert str(refusal.value).startswith(str(path))
    assert "prepare.download" in str(refusal.value)


def test_labels_that_do_not_go_with_the_images_of_mnist_are_named(mnist_root):
    write_idx(mnist_root / "MNIST/raw/train-labels-idx1-ubyte", np.zeros(39))
    with pytest.raises(ValueError, match="train-labels-idx1-ubyte has 39 labels for 40 images"):
        mnist(mnist_root, download=False)


def test_mnist_is_downloaded_once(mnist_root, tmp_path, monkeypatch):
    """The real download, from a server on this machine that has packed files."""
    served, target = tmp_path / "served", tmp_path / "target"
    served.mkdir()
    resources = []
    for path in sorted((mnist_root / "MNIST/raw").iterdir()):
        packed = gzip.compress(path.read_bytes())
        (served / f"{path.name}.gz").write_bytes(packed)
        resources.append((f"{path.name}.gz", md5(packed).hexdigest()))
    handler = partial(SimpleHTTPRequestHandler, directory=served)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
        monkeypatch.setattr(MNIST, "resources", resources)
        fetched = mnist(target, download=True)
        server.shutdown()
    assert np.array_equal(fetched.images, mnist(mnist_root, download=False).images)
    assert len(mnist(target, download=True).images) == 40


def test_a_download_that_fails_is_one_error_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/"])
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/cifar.tar.gz")
    for source, name in ((mnist, "MNIST"), (cifar10, "CIFAR10")):
        with pytest.raises(
            ValueError, match=f"{name} could not be downloaded to .* set prepare.download to false"
        ) as it:
            source(tmp_path, download=True)
        assert "\n" not in str(it.value)


# --- CIFAR-10 ----------------------------------------------------------------------------------------------------


@pytest.fixture
def cifar_root(tmp_path, monkeypatch):
    """Batches of four images in CIFAR-10's format. Torchvision opens the published bytes alone, so that the checksums
    it compares with are replaced by those of our files."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()

    def write(name, content):
        (folder / name).write_bytes(pickle.dumps(content))
        return [name, md5((folder / name).read_bytes()).hexdigest()]

    def batch(name):
        return write(name, {"data": RNG.integers(0, 256, (4, 3072), dtype=np.uint8), "labels": [3, 0, 9, 1]})

    monkeypatch.setattr(CIFAR10, "train_list", [batch(f"data_batch_{i}") for i in range(1, 6)])
    monkeypatch.setattr(CIFAR10, "test_list", [batch("test_batch")])
    name, checksum = write("batches.meta", {"label_names": list("abcdefghij")})
    monkeypatch.setattr(CIFAR10, "meta", {"filename": name, "key": "label_names", "md5": checksum})
    return tmp_path


def test_cifar10_is_read_as_its_batches_have_it(cifar_root):
    source = cifar10(cifar_root, download=False)
    batches = [
        pickle.loads((cifar_root / f"cifar-10-batches-py/{name}").read_bytes())
        for name in ("data_batch_1", "data_batch_5", "test_batch")
    ]
    assert source.images.shape == (20, 3, 32, 32)
    assert np.array_equal(source.images[:4].reshape(4, -1), batches[0]["data"])
    assert np.array_equal(source.images[16:].reshape(4, -1), batches[1]["data"])
    assert np.array_equal(source.test[0].reshape(4, -1), batches[2]["data"])
    assert source.test[1].tolist() == [3, 0, 9, 1]
    _, _, description = prepare(source, "cifar10", test_share=None, enlarge=None, seed=0)
    assert description.mean == [0.4914, 0.4822, 0.4465]
    assert description.std == [0.2023, 0.1994, 0.2010]


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
def test_a_missing_or_changed_batch_of_cifar10_is_named_and_never_opened(cifar_root, name):
    path = cifar_root / "cifar-10-batches-py" / name
    path.write_bytes(b"cos\nsystem\n(S'touch " + str(cifar_root / "pwned").encode() + b"'\ntR.")
    with pytest.raises(ValueError, match=f"{name} is not the published file"):
        cifar10(cifar_root, download=False)
    assert not (cifar_root / "pwned").exists()
    path.unlink()
    with pytest.raises(ValueError, match=f"{name} is missing: put the published file there"):
        cifar10(cifar_root, download=False)


# --- image folders -----------------------------------------------------------------------------------------------


def gradient(width: int, height: int) -> np.ndarray:
    """Red grows to the right, green downwards."""
    red, green = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.stack([red, green, np.full_like(red, 7)], axis=-1).astype(np.uint8)


def save(path: Path, pixels: np.ndarray, mode: str = "RGB", **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    (image.convert(mode) if image.mode != mode else image).save(path, **options)
    return path


@pytest.fixture
def pets(tmp_path):
    """Three classes of four JPEGs of different sizes and shapes."""
    folder = tmp_path / "pets"
    for number, name in enumerate(("cat", "Äffin", "dog")):
        for i in range(4):
            pixels = gradient(20 + 3 * i, 30 - 2 * i)
            pixels[..., 2] = 40 * number + 10 * i
            save(folder / name / f"{i}.jpg", pixels)
    return folder


def read(folder, **options):
    return image_folder(folder, **({"test_share": 0.25, "image_size": 16, "channels": 3} | options))


def test_one_folder_of_classes_is_split_by_the_share(pets):
    source = read(pets)
    assert source.classes == ["cat", "dog", "Äffin"], "sorted by code point"
    assert source.images.shape == (12, 3, 16, 16)
    assert source.images.dtype == np.uint8
    assert source.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    train, test, description = prepare(source, "image_folder", test_share=0.25, enlarge=None, seed=0)
    assert np.bincount(train.labels).tolist() == [3, 3, 3]
    assert np.bincount(test.labels).tolist() == [1, 1, 1]
    assert description.classes == source.classes


def test_a_folder_with_a_test_split_keeps_it(pets, tmp_path):
    shutil.copytree(pets, tmp_path / "own/train")
    shutil.copytree(pets, tmp_path / "own/test")
    for path in (tmp_path / "own/test").rglob("[123].jpg"):
        path.unlink()
    source = read(tmp_path / "own", test_share=None)
    assert (len(source.images), len(source.test[0])) == (12, 3)
    assert np.array_equal(source.test[0], source.images[::4])
    assert source.test[1].tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match=r"prepare.test_share is 0.25: .* has a test split of its own"):
        read(tmp_path / "own")
    with pytest.raises(ValueError, match=r"prepare.test_share is null: .* has no folders train and test"):
        read(pets, test_share=None)


def test_images_of_every_kind_become_squares_of_8_bits(tmp_path):
    """Each a gradient whose value at a place is known, read back within a JPEG's or a rounding's error."""
    pixels = gradient(64, 32)
    grey = pixels[..., 0]
    folder = tmp_path / "kinds"
    save(folder / "a/rgb.png", pixels)
    save(folder / "a/rgba.png", pixels, "RGBA")
    save(folder / "a/cmyk.jpg", pixels, "CMYK", quality=100)
    save(folder / "a/palette.gif", pixels, "P")
    save(folder / "b/grey.png", grey, "L")
    save(folder / "b/deep.png", (grey.astype(np.uint16) * 257), "I;16")
    save(folder / "b/deep.tif", (grey.astype(np.uint16) * 257), "I;16")
    save(folder / "b/one.bmp", grey, "1")
    rgb = read(folder)
    assert rgb.images.shape == (8, 3, 16, 16)
    # the central 32x32, two to one; resizing before cropping sees a little further at the edges
    expected = np.asarray(Image.fromarray(pixels[:, 16:48]).resize((16, 16), Image.Resampling.BILINEAR))
    names = [path.name for name in "ab" for path in sorted((folder / name).iterdir())]
    found = dict(zip(names, rgb.images.astype(int), strict=True))
    for name, tolerance in {"rgb.png": 1, "rgba.png": 1, "cmyk.jpg": 12, "palette.gif": 40}.items():
        assert np.abs(found[name] - expected.transpose(2, 0, 1)).max() <= tolerance, name
    for name in ("grey.png", "deep.png", "deep.tif"):
        assert np.abs(found[name] - expected[..., 0]).max() <= 1, name
    assert read(folder, channels=1).images.shape == (8, 1, 16, 16)
    grey_images = dict(zip(names, read(folder, channels=1).images.astype(int), strict=True))
    assert np.abs(grey_images["deep.png"] - expected[..., 0]).max() <= 1


def test_an_image_is_turned_as_its_exif_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown a quarter turn clockwise
    pixels = gradient(32, 32)
    save(tmp_path / "d/a/turned.png", np.rot90(pixels).copy(), exif=exif)
    save(tmp_path / "d/b/upright.png", pixels)
    turned, upright = read(tmp_path / "d").images
    assert np.array_equal(turned, upright)


def png_claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header says it is huge."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


BAD_FILES = {
    "empty": (lambda good: b"", "empty file"),
    "text": (lambda good: b"hello\n" * 50, "not an image of a known format"),
    "truncated": (lambda good: good[:-60], "truncated"),
    "header alone": (lambda good: good[:30], "Truncated File Read"),
    "bomb": (lambda good: png_claiming(40_000, 40_000), "exceeds limit"),
    "large": (lambda good: png_claiming(9_000, 9_000), "9000x9000 pixels, more than"),
    "ribbon": (lambda good: png_claiming(30_000, 10), "times as long as wide"),
    "postscript": (lambda good: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image of a known"),
}


@pytest.mark.parametrize(("content", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_named_with_the_reason(pets, content, message):
    good = pets / "dog/2.jpg"
    (pets / "dog/2.jpg").write_bytes(content(good.read_bytes()))
    with pytest.raises(ValueError, match=message) as refusal:
        read(pets)
    assert "1 file(s) or folder(s) cannot be used: dog/2.jpg (" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_all_that_is_wrong_is_said_at_once_and_long_lists_are_cut_short(pets):
    (pets / "empty class").mkdir()
    (pets / "notes.txt").write_text("x")
    (pets / "cat/broken link.jpg").symlink_to("nowhere")
    (pets / "cat/kittens").mkdir()
    os.mkfifo(pets / "cat/pipe.jpg")
    (pets / "cat/two\nlines.jpg").write_bytes(b"")
    (pets / "cat/.DS_Store").write_text("skipped")
    with pytest.raises(ValueError, match=r"6 file\(s\) or folder\(s\) cannot be used") as refusal:
        read(pets)
    for said in (
        "empty class (a class without images)",
        "notes.txt (a file outside the class folders)",
        "cat/broken link.jpg (no such file)",
        "cat/kittens (not a plain file)",
        "cat/pipe.jpg (not a plain file)",
        r"'cat/two\nlines.jpg' (a name with a line break or another control character",
    ):
        assert said in str(refusal.value)
    for i in range(9):
        (pets / f"dog/bad{i}.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"15 file\(s\).* and 5 more: mend or remove them"):
        read(pets)


def test_classes_must_be_at_least_two_and_the_same_in_both_splits(pets, tmp_path):
    shutil.copytree(pets, tmp_path / "own/train")
    shutil.copytree(pets / "cat", tmp_path / "own/test/cat")
    with pytest.raises(ValueError, match="class folders in train or test but not in both: dog, Äffin"):
        read(tmp_path / "own", test_share=None)
    with pytest.raises(ValueError, match="at least two classes: it has only pets"):
        read(tmp_path / "one" if shutil.copytree(pets, tmp_path / "one/pets") else None)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ValueError, match="at least two classes: it has none"):
        read(tmp_path / "nothing")
    with pytest.raises(ValueError, match="there is no such folder or archive"):
        read(tmp_path / "elsewhere")


def test_more_images_than_memory_holds_are_refused_with_the_remedy(pets, monkeypatch):
    monkeypatch.setattr(class_folders, "usable_memory", lambda: 3 * 12 * 3 * 16 * 16 - 1)
    with pytest.raises(ValueError, match=r"12 images of 768 bytes .* lower prepare.image_size"):
        read(pets)


# --- archives ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pets.tar", "pets.tar.gz", "pets.tgz", "pets.tar.xz"])
@pytest.mark.parametrize("top", ["", "pets/"])
def test_an_archive_is_as_good_as_its_folder(pets, tmp_path, name, top):
    with tarfile.open(tmp_path / name, "w:" + {"tar": "", "tgz": "gz"}.get(name.split(".")[-1], name[-2:])) as tar:
        for path in sorted(pets.iterdir()):
            tar.add(path, f"{top}{path.name}")
    packed, folder = read(tmp_path / name), read(pets)
    assert np.array_equal(packed.images, folder.images)
    assert packed.classes == folder.classes
    assert packed.origin == folder.origin


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tuple[tarfile.TarInfo, io.BytesIO]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, 5 if kind == tarfile.REGTYPE else 0
    return info, io.BytesIO(b"pwned")


BAD_MEMBERS = {
    "absolute path": (member("/tmp/smoothmix-pwned"), "leads out of the archive"),
    "path upwards": (member("cat/../../smoothmix-pwned"), "leads out of the archive"),
    "symbolic link": (member("cat/link.jpg", tarfile.SYMTYPE, "/etc/hostname"), "is a link or a device"),
    "hard link": (member("cat/link.jpg", tarfile.LNKTYPE, "cat/0.jpg"), "is a link or a device"),
    "device": (member("cat/null.jpg", tarfile.CHRTYPE), "is a link or a device"),
    "pipe": (member("cat/pipe.jpg", tarfile.FIFOTYPE), "is a link or a device"),
}


@pytest.mark.parametrize(("bad", "message"), BAD_MEMBERS.values(), ids=BAD_MEMBERS)
def test_an_archive_that_reaches_outside_is_refused_by_member(pets, tmp_path, bad, message):
    path = tmp_path / "bad.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(pets, ".")
        tar.addfile(*bad)
    with pytest.raises(ValueError, match=message) as refusal:
        read(path)
    assert repr(bad[0].name) in str(refusal.value)
    assert not Path("/tmp/smoothmix-pwned").exists()


@pytest.mark.parametrize(("bound", "value"), [("MAX_MEMBERS", 5), ("MAX_BYTES", 4_000)])
def test_an_archive_beyond_its_bounds_is_refused_before_it_is_unpacked(pets, tmp_path, monkeypatch, bound, value):
    path = tmp_path / "large.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(pets, ".")
    monkeypatch.setattr(archive_module, bound, value)
    (tmp_path / "target").mkdir()
    with pytest.raises(ValueError, match=r"holds more than .* unpack it by hand"):
        archive_module.unpack(path, tmp_path / "target")
    assert sum(file.stat().st_size for file in (tmp_path / "target").rglob("*.jpg")) <= 4_000


@pytest.mark.parametrize("suffix", ["tar", "gz", "xz"])
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.9])
def test_a_torn_archive_is_refused_and_leaves_nothing(pets, tmp_path, monkeypatch, suffix, keep):
    path = tmp_path / f"torn.{'' if suffix == 'tar' else 'tar.'}{suffix}"
    with tarfile.open(path, f"w:{'' if suffix == 'tar' else suffix}") as tar:
        tar.add(pets, ".")
    last = path.stat().st_size - (10_240 if suffix == "tar" else 0)  # a tar ends in blocks of zeros
    path.write_bytes(path.read_bytes()[: int(keep * last)])
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    with pytest.raises(ValueError, match="cannot be unpacked"):
        read(path)
    assert not list((tmp_path / "temporary").iterdir())


def test_a_file_that_is_no_archive_is_refused(tmp_path):
    (tmp_path / "pets.zip").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"pets.zip: must be a folder or an archive \(.tar, "):
        read(tmp_path / "pets.zip")


# --- ImageNet ----------------------------------------------------------------------------------------------------


@pytest.fixture
def imagenet_root(pets, tmp_path):
    shutil.copytree(pets, tmp_path / "imagenet/train")
    shutil.copytree(pets, tmp_path / "imagenet/val")
    return tmp_path / "imagenet"


def test_imagenet_stays_files_behind_a_manifest(imagenet_root):
    source = imagenet(imagenet_root)
    assert isinstance(source, FileSource)
    assert source.train.paths[:2] == ["train/cat/0.jpg", "train/cat/1.jpg"]
    assert source.test.paths[-1] == "val/Äffin/3.jpg"
    assert source.test.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert source.train.hashes == source.test.hashes, "hashes are of contents"
    assert len(set(source.train.hashes)) == 12
    _, test, description = prepare(source, "imagenet", test_share=None, enlarge=None, seed=0)
    assert (description.image_shape, description.max_value) == ([3, 224, 224], 255)
    assert (description.mean, description.std) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert (description.test_images, description.test_sha256) == (12, test.sha256)
    assert str(imagenet_root) not in str(description)


def test_spoilt_files_of_imagenet_are_named_in_both_splits(imagenet_root):
    (imagenet_root / "train/dog/1.jpg").write_bytes(b"")
    spoilt = imagenet_root / "val/cat/3.jpg"
    spoilt.write_bytes(spoilt.read_bytes()[:-60])
    with pytest.raises(ValueError, match=r"2 file.*: train/dog/1.jpg \(empty file\), val/cat/3.jpg \(.*truncated"):
        imagenet(imagenet_root)
    shutil.rmtree(imagenet_root / "val")
    with pytest.raises(ValueError, match="has no folder val of class folders"):
        imagenet(imagenet_root)


# --- the stage ---------------------------------------------------------------------------------------------------


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """Runs the stage in an empty workspace: a function of the settings that differ from own images' recipe."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".git").mkdir()
    own = params.load(ROOT / "recipes/image_folder.yaml")

    def run(**settings):
        options = {"image_size": None, "channels": None, "test_share": None, "download": False, "enlarge": None}
        stage.run(params.replace(own, prepare=Prepare(**(options | settings))))

    return run


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_failure_leaves_the_earlier_data_and_nothing_else(recipe, pets, tmp_path):
    own = {"source": "image_folder", "root": str(pets), "test_share": 0.25, "image_size": 16, "channels": 3}
    recipe(**own)
    before = files(tmp_path / "outputs/data")
    assert sorted(before) == [
        "prepared/description.json",
        "prepared/test/images.npy",
        "prepared/test/labels.npy",
        "prepared/test/paths.txt",
        "prepared/train/images.npy",
        "prepared/train/labels.npy",
        "prepared/train/paths.txt",
    ]
    (pets / "dog/1.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"dog/1\.jpg"):
        recipe(**own)
    assert files(tmp_path / "outputs/data") == before


def test_a_failure_while_writing_leaves_the_earlier_data_too(recipe, pets, tmp_path, monkeypatch):
    own = {"source": "image_folder", "root": str(pets), "test_share": 0.25, "image_size": 16, "channels": 3}
    recipe(**own)
    before = files(tmp_path / "outputs/data")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stage, "save_description", full)
    with pytest.raises(ValueError, match=r"outputs/data/prepared cannot be written \(No space left on device\): make"):
        recipe(**own | {"image_size": 24})
    assert files(tmp_path / "outputs/data") == before


def test_new_data_of_another_form_replaces_the_old_whole(recipe, pets, imagenet_root, tmp_path):
    recipe(source="image_folder", root=str(pets), test_share=0.25, image_size=16, channels=3)
    recipe(source="imagenet", root=str(imagenet_root))
    assert sorted(files(tmp_path / "outputs/data")) == [
        "prepared/description.json",
        "prepared/test/manifest.tsv",
        "prepared/train/manifest.tsv",
    ]


def test_a_relative_root_counts_from_the_main_checkout(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_EXP_NAME", "x")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "main"))
    assert artifacts.source_root("data/pets") == tmp_path / "main/data/pets"
    assert artifacts.source_root(None) == tmp_path / "main/data/raw"
    assert artifacts.source_root("/elsewhere") == Path("/elsewhere")
