"""The attack as a command, on a half-space classifier and its table of certificates."""

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from components.certification import table
from components.certification.cohen import certifying
from components.certification.sampling import answered
from components.data.prepared import Description, Split, save_split
from components.data.streaming import on_grid
from components.tools.files import write_json
from pipelines import artifacts, attack
from tests.support.half_spaces import GRID, HalfSpaces, sampler_of

ROOT = Path(__file__).parents[2]
SIGMA, MAX_VALUE = 0.5, 16
NETWORK = HalfSpaces([1.0, 0.5], -0.5)
QUICK = ("--steps", "20", "--noises", "16", "--n", "10000")
TABLE = artifacts.attacks(SIGMA)


@pytest.fixture(scope="module")
def certified(tmp_path_factory):
    """A workspace with 12 images of two values and their honest table; the last image lies on the border."""
    folder = tmp_path_factory.mktemp("certified")
    pixels = np.random.default_rng(0).integers(0, MAX_VALUE + 1, (12, 1, 1, 2)).astype(np.uint8)
    pixels[-1] = [[[4, 8]]]
    images = [on_grid(torch.from_numpy(image), MAX_VALUE, GRID) for image in pixels]
    split = Split(pixels, np.array([int(NETWORK.distance(image) > 0) for image in images]))
    save_split(split, folder / artifacts.TEST_SPLIT)
    sampler, lines = sampler_of(NETWORK, images[0], sigma=SIGMA), []
    for index, image in enumerate(images):
        procedure = certifying(SIGMA, n0=100, n=10_000, failure_prob=0.001, bound="two_class")
        certificate = answered(procedure, sampler.stream(image, seed=1, index=index).count)
        lines.append(table.format_row(index, int(split.labels[index]), certificate))
    table.write(folder / artifacts.certificates(SIGMA), lines)
    identity = {"mode": "reference", "sigma": SIGMA, "n": 10_000, "failure_prob": 0.001, "bound": "two_class"}
    identity |= {"weights_sha256": "w", "images_sha256": split.sha256}
    write_json(folder / artifacts.certificates_identity(SIGMA), identity)
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    raw["noise_levels"] = {str(SIGMA): {}}
    (folder / "params.yaml").write_text(yaml.safe_dump(raw))
    return folder


@pytest.fixture
def workspace(certified, tmp_path, monkeypatch):
    folder = shutil.copytree(certified, tmp_path / "workspace")
    monkeypatch.chdir(folder)
    split = np.load(artifacts.TEST_SPLIT / "images.npy"), np.load(artifacts.TEST_SPLIT / "labels.npy")
    facts = {"source": "points", "origin": "", "classes": ["a", "b"], "image_shape": [1, 1, 2], "max_value": MAX_VALUE}
    sizes = {"mean": None, "std": None, "train_images": 12, "test_images": 12, "train_sha256": ""}
    description = Description(**facts, **sizes, test_sha256=Split(*split).sha256)
    facts = {"sigma": SIGMA, "precision": "float32", "grid": GRID, "weights_sha256": "w"}
    content = {"weights_sha256": "w"}
    card = SimpleNamespace(image_shape=[1, 1, 2], classes=["a", "b"], content=content, **facts)
    monkeypatch.setattr(attack, "load_description", lambda path: description)
    monkeypatch.setattr(attack.weights, "load", lambda folder, device: (NETWORK, card))
    return SimpleNamespace(folder=folder, card=card)


def run(monkeypatch, *options):
    """The command's exit code."""
    monkeypatch.setattr(sys, "argv", ["attack", *QUICK, *options])
    with pytest.raises(SystemExit) as ended:
        attack.main()
    return ended.value.code


def change(column, value, index=3):
    """Let the table of certificates say something else of an image; its row before."""
    rows = pd.read_csv(artifacts.certificates(SIGMA), sep="\t")
    before = rows.loc[index].copy()
    rows.loc[index, column] = value(before)
    rows.to_csv(artifacts.certificates(SIGMA), sep="\t", index=False)
    return before


@pytest.mark.medium
def test_an_honest_table_is_not_contradicted_and_nearly_reached(workspace, monkeypatch, capsys):
    assert run(monkeypatch) == 0
    said = capsys.readouterr()
    assert "attack σ=0.5: 11/11 images" in said.err
    assert "no certificate is contradicted; the nearest change is 0.0" in said.out
    rows = pd.read_csv(TABLE, sep="\t")
    assert list(rows) == attack.COLUMNS
    assert rows["idx"].tolist() == list(range(11)), "the image on the border has no certificate"
    found = rows.dropna()
    assert len(found) >= 6
    assert (found["attacked"] > found["radius"]).all()
    assert (found["radius"] / found["attacked"]).median() > 0.8
    identity = json.loads(artifacts.attacks_identity(SIGMA).read_text())
    assert (identity["weights_sha256"], identity["arithmetic"], identity["images"]) == ("w", "exact", 11)
    assert (identity["steps"], identity["noises"], identity["n"]) == (20, 16, 10_000)
    for name in ("certified_and_attacked.png", "report.html"):
        assert (artifacts.ATTACKS / name).stat().st_size > 5_000


@pytest.mark.medium
def test_a_table_that_claims_too_much_is_contradicted(workspace, monkeypatch, capsys):
    before = change("radius", lambda row: round(1.4 * row["radius"], 9))
    assert run(monkeypatch, "--sigma", "0.5") == 1
    said = capsys.readouterr()
    claim = f"image 3 is contradicted: class {before['predict']} is certified within {1.4 * before['radius']:.6f}"
    assert claim in said.out
    assert "1 certificates are contradicted (see above): use none of these tables" in said.err
    assert "no certificate" not in said.out
    assert len(pd.read_csv(TABLE, sep="\t")) == 11
    assert (TABLE.parent / "certified_and_attacked.png").exists()


@pytest.mark.medium
def test_a_table_that_names_another_class_is_contradicted_at_distance_zero(workspace, monkeypatch, capsys):
    change("predict", lambda row: 1 - row["predict"])
    assert run(monkeypatch) == 1
    assert "has changed at 0.000000000" in capsys.readouterr().out


@pytest.mark.medium
def test_a_stopped_attack_goes_on_and_ends_with_the_same_table(workspace, monkeypatch, capsys):
    assert run(monkeypatch) == 0
    whole = TABLE.read_text()
    shutil.rmtree(".state")
    TABLE.unlink()
    codes = [run(monkeypatch, "--max-minutes", "1e-9")]
    assert not TABLE.exists()
    assert "stopped after 1 of 11 images at sigma 0.5" in capsys.readouterr().err
    while codes[-1] == 75:
        codes.append(run(monkeypatch, "--max-minutes", "1e-9"))
    assert codes == [75] * 10 + [0]
    assert TABLE.read_text() == whole


@pytest.mark.medium
def test_what_is_there_is_not_computed_again(workspace, monkeypatch):
    assert run(monkeypatch, "--images", "5") == 0
    few = TABLE.read_text().splitlines()
    assert [line.split("\t")[0] for line in few[1:]] == ["0", "2", "5", "8", "10"]
    computed, attack_one = [], attack.attack
    monkeypatch.setattr(attack, "attack", lambda *a, **k: computed.append(k["index"]) or attack_one(*a, **k))
    assert run(monkeypatch) == 0
    assert sorted(computed) == [1, 3, 4, 6, 7, 9]
    assert set(few) < set(TABLE.read_text().splitlines())


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda w: w.card.content.update(weights_sha256="v"), "is of other weights than lie in outputs: run python -m"),
        (lambda w: artifacts.certificates_identity(SIGMA).unlink(), "pipelines.certify --sigma 0.5"),
        (lambda w: artifacts.certificates(SIGMA).unlink(), "certify again"),
        (lambda w: setattr(w.card, "sigma", 0.25), "trained at sigma 0.25, not 0.5: train it again"),
        (lambda w: change("predict", lambda row: -1, slice(None)), "certifies no image"),
    ],
    ids=["other weights", "no identity", "no table", "other sigma", "no certificate"],
)
def test_what_cannot_be_attacked_is_one_line_with_a_remedy(workspace, monkeypatch, capsys, spoil, said):
    spoil(workspace)
    assert run(monkeypatch) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert said in line


@pytest.mark.parametrize(
    ("options", "said"),
    [(("--sigma", "0.3"), "params.yaml has 0.5"), (("--images", "0"), "--images"), (("--n", "many"), "--n")],
)
def test_bad_usage_is_refused(workspace, monkeypatch, capsys, options, said):
    assert run(monkeypatch, *options) == 2
    assert said in capsys.readouterr().err
