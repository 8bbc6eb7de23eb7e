"""Pictures of 16 bits, with opacity and of two sides, through all stages to a served answer, as commands."""

import json
import struct
import sys
import zlib

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from components.model.card import load_card
from components.registry.loading import load_classifier
from components.serving.pictures import images_of_pictures
from tests.support.workspace import copy_project, edit, run

pytestmark = pytest.mark.medium

PICTURES = {
    r"  root: .*": "  root: pictures",
    r"image_size: 32 .*": "image_size: [16, 24]",
    r"channels: 3 .*": "channels: 2",
    r"method: smoothmix": "method: gaussian",
    r"epochs: 60": "epochs: 3",
    r"\n  n: 10000 ": "\n  n: 1000 ",
    r'\n  "0.5":\n.*': "",
}


def stage(project, name, *options):
    done = run(project, sys.executable, "-m", f"pipelines.{name}", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "UserWarning" not in done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Two classes that the opacity tells apart, and bits below the eighth that must not get lost."""
    folder = copy_project(tmp_path_factory.mktemp("project"))
    (folder / "params.yaml").write_text((folder / "recipes/image_folder.yaml").read_text())
    edit(folder / "params.yaml", PICTURES)
    rng = np.random.default_rng(0)
    for label, name in enumerate(("clear", "opaque")):
        (folder / "pictures" / name).mkdir(parents=True)
        for i in range(20):
            grey = rng.integers(0, 65536, (16, 24), dtype=np.uint16)
            opacity = np.full((16, 24), 60000 * label + i, dtype=np.uint16)
            picture = np.stack([grey >> 8, grey & 255, opacity >> 8, opacity & 255], axis=-1).astype(np.uint8)
            write_deep(folder / "pictures" / name / f"{i}.png", picture)
    return folder


def write_deep(path, picture):
    """Four bytes a pixel under a header that says two values of 16 bits, which Pillow cannot write."""
    height, width, _ = picture.shape
    lines = b"".join(b"\0" + row.tobytes() for row in picture)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 4, 0, 0, 0)), (b"IDAT", zlib.compress(lines))]
    packed = [
        struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in [*chunks, (b"IEND", b"")]
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))
    assert Image.open(path).size == (width, height)


@pytest.fixture(scope="module")
def answered(project):
    stage(project, "check")
    said = stage(project, "prepare")
    assert "prepared 32 training and 8 test images with 16 bits from image folder" in said
    stage(project, "validate")
    for name in ("train", "certify"):
        stage(project, name, "--sigma", "0.25")
    stage(project, "evaluate")
    stage(project, "register")
    return project


def test_the_prepared_arrays_have_every_bit(answered):
    images = np.load(answered / "outputs/data/prepared/test/images.npy")
    assert (images.shape, images.dtype) == ((8, 2, 16, 24), np.uint16)
    assert set(images[:, 1, 0, 0] % 1000) <= set(range(20))
    assert len(np.unique(images & 255)) == 256


def test_certificates_are_made_on_the_grid_of_16_bits(answered):
    identity = json.loads((answered / "outputs/certificates/0.25/identity.json").read_text())
    assert (identity["grid"], identity["arithmetic"]) == (65535, "exact")
    table = pd.read_csv(answered / "outputs/certificates/0.25/table.tsv", sep="\t")
    assert table["correct"].mean() > 0.8
    assert table["radius"].max() > 0.5


def test_the_registered_model_answers_pictures_of_16_bits_without_rounding(answered):
    mlflow.set_tracking_uri(f"sqlite:///{answered}/.state/mlflow/mlflow.db")
    classifier = load_classifier("models:/images-sigma-0.25@challenger")
    images = np.load(answered / "outputs/data/prepared/test/images.npy")
    labels = np.load(answered / "outputs/data/prepared/test/labels.npy")
    answers = classifier.certify(torch.from_numpy(images).float() / 65535, n=1000)
    assert not answers["rounded"].any()
    assert (answers["class"] == labels).mean() > 0.8
    between = classifier.certify(torch.from_numpy(images[:1]).float() / 65535 + 0.3 / 65535, n=1000)
    assert between["rounded"].all()
    with pytest.raises(ValueError, match=r"\(B, 2, 16, 24\)|2, 16, 24"):
        classifier.certify(torch.zeros(1, 2, 24, 16))


def test_pictures_become_its_images_by_the_rule_on_its_card(answered):
    """Files of 16 bits with opacity, as they were prepared: nothing is lost on the way to the service."""
    card = load_card(answered / "outputs/models/0.25")
    assert card.pictures == {"cover": [16, 24], "background": [255, 255, 255], "bits": 16}
    prepared = answered / "outputs/data/prepared/test"
    files = [answered / "pictures" / name for name in (prepared / "paths.txt").read_text().splitlines()]
    images, rules = images_of_pictures([path.read_bytes() for path in files], card)
    pixels = np.load(prepared / "images.npy").astype(np.int32)
    assert torch.equal((images * 65535).round().int(), torch.from_numpy(pixels))
    assert set(rules) == {"24x16, as the model's images: not resized; as grey with opacity, of 16 bits"}


def test_an_audit_of_the_table_finds_nothing(answered):
    assert "Traceback" not in stage(answered, "audit", "--model", "models:/images-sigma-0.25@challenger")
