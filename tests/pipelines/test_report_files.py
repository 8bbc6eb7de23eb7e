"""What the report is read from: logs that are missing or empty, attacks on another table, images in files or none."""

import gzip
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components import params as parameters
from components.data.manifest import Manifest
from components.data.prepared import Split, save_split
from components.tools.hashing import hash_file
from pipelines import artifacts
from pipelines.report_files import NoPictures, image_reader, load_level, published, write_page
from tests.support import reports

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "results/digits/smoothmix/0.5/outputs"
SIGMA = 0.5


@pytest.fixture
def params(tmp_path, monkeypatch):
    """A workspace with the kept table of the digits at one noise level, and nothing else."""
    monkeypatch.chdir(tmp_path)
    table = artifacts.certificates(SIGMA)
    table.parent.mkdir(parents=True)
    table.write_bytes(gzip.decompress((KEPT / "certificates/0.5/table.tsv.gz").read_bytes()))
    artifacts.certificates_identity(SIGMA).write_bytes((KEPT / "certificates/0.5/identity.json").read_bytes())
    return parameters.load(ROOT / "params.yaml")


def description(**more):
    return replace(reports.description(450), classes=list("0123456789"), **more)


def test_a_level_without_card_and_logs_is_read(params):
    level = load_level(params, SIGMA, description())
    assert (level.training, level.history, level.provenance, level.attacks) == ({}, None, {}, None)
    assert len(level.table) == 450
    assert level.summary["bound"] == "one_class"


@pytest.mark.parametrize("text", ["", "\n", "epoch,learning_rate,loss,noisy_accuracy,seconds\n"])
def test_an_empty_history_counts_as_none(params, text):
    artifacts.history(SIGMA).parent.mkdir(parents=True)
    artifacts.history(SIGMA).write_text(text)
    assert not len(load_level(params, SIGMA, description()).epochs)


@pytest.mark.medium
def test_attacks_are_read_where_they_were_on_this_very_table(params):
    artifacts.attacks(SIGMA).parent.mkdir(parents=True)
    artifacts.attacks(SIGMA).write_text("idx\tlabel\tpredict\tradius\tattacked\n0\t1\t1\t1.5\t\n")
    facts = {"certificates_sha256": hash_file(artifacts.certificates(SIGMA))}
    artifacts.attacks_identity(SIGMA).write_text(json.dumps(facts))
    found = load_level(params, SIGMA, description(), attacks=True).attacks
    assert found["attacked"].isna().all()
    assert load_level(params, SIGMA, description()).attacks is None, "evaluate depends on none"
    artifacts.attacks_identity(SIGMA).write_text(json.dumps({"certificates_sha256": "another"}))
    assert load_level(params, SIGMA, description(), attacks=True).attacks is None


def test_published_figures_are_those_of_data_method_and_sigma():
    acr, curve = published("cifar10", "smoothmix", 0.5)
    assert acr == 0.736
    assert curve["radius"].tolist()[:3] == [0.0, 0.25, 0.5]
    assert published("digits", "smoothmix", 0.5) == (None, None)
    assert published("cifar10", None, 0.5) == (None, None)


@pytest.mark.medium
def test_images_of_another_table_and_missing_ones_are_named_on_the_page(params):
    level = load_level(params, SIGMA, description())
    with pytest.raises(NoPictures, match=r"not those of the table at sigma 0\.5"):
        image_reader(params, description(), [level])
    own = description(test_sha256=level.identity["images_sha256"])
    with pytest.raises(NoPictures, match=r"images\.npy cannot be read"):
        image_reader(params, own, [level])
    write_page(params, own, [level], artifacts.REPORT_PAGE)
    assert "images.npy cannot be read" in artifacts.REPORT_PAGE.read_text(encoding="utf-8")


def test_prepared_images_are_read_on_the_unit_scale(params):
    level = load_level(params, SIGMA, description())
    own = description(test_sha256=level.identity["images_sha256"], max_value=16)
    pixels = np.arange(8, dtype=np.uint8).reshape(2, 1, 2, 2)
    save_split(Split(pixels, np.array([0, 1])), artifacts.TEST_SPLIT)
    image = image_reader(params, own, [level])
    assert image(1).tolist() == (pixels[1] / 16).tolist()


def test_images_in_files_are_decoded_and_a_changed_file_is_named(params, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.fromarray(np.full((300, 260, 3), 51, np.uint8)).save(folder / "a.png")
    sha256 = hashlib.sha256((folder / "a.png").read_bytes()).hexdigest()
    save_split(Manifest(["a.png"], np.array([0]), [sha256]), artifacts.TEST_SPLIT)
    level = load_level(params, SIGMA, description())
    own = description(test_sha256=level.identity["images_sha256"])
    with_root = replace(params, prepare=replace(params.prepare, root=str(folder)))
    image = image_reader(with_root, own, [level])
    assert image(0).shape == (3, 224, 224)
    assert np.allclose(image(0), 0.2)
    (folder / "a.png").write_bytes(b"another")
    with pytest.raises(NoPictures, match=r"a\.png: not the file that was prepared"):
        image(0)
