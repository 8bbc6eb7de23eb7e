"""Pairs of runs, and of tables that others made, on the images that both have."""

import gzip
import json
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.published.compare import compare
from components.certification import table
from components.evaluation.metrics import certified_radii
from components.evaluation.paired import paired_acr_difference
from components.evaluation.rebound import rebound

pytestmark = pytest.mark.medium

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "results/digits"
RUN = DIGITS / "smoothmix/0.5"
OURS = RUN / "outputs/certificates/0.5"
FIELD = ["idx", "label", "predict", "radius", "correct", "time"]
RADII = [0.0, 0.5, 2.0]


def field_table(path: Path, **changes: object) -> Path:
    """A table in the field's form, of every other image of the digits: smaller radii than ours, and no counts."""
    rows = table.read(OURS / "table.tsv.gz")[::2]
    rows = rows.assign(radius=(0.9 * rows["radius"]).map(lambda radius: float(f"{radius:.3g}")), time="0:00:00.5")
    rows.assign(**changes)[FIELD].to_csv(path, sep="\t", index=False)
    return path


def test_two_sets_are_compared_pair_by_pair():
    lines = compare(DIGITS, ROOT / "results/digits_bfloat16", RADII).splitlines()
    first, header, _, *rows, by = lines[: lines.index("")]
    assert by.startswith("ACR by the one-class bound, as are all published figures")
    assert first == "train.precision: float32 in digits, bfloat16 in digits_bfloat16"
    assert header.split()[:5] == ["sigma", "method", "images", "digits", "digits_bfloat16"]
    assert [line.split()[:3] for line in rows] == [[level, "smoothmix", "450"] for level in ("0.25", "0.5", "1.0")]
    for line in rows:
        level, method, *_ = line.split()
        files = [ROOT / f"results/{name}/{method}/{level}/metrics.json" for name in ("digits", "digits_bfloat16")]
        first_acr, second_acr = (json.loads(file.read_text())[level]["acr_one_class"] for file in files)
        mean, error, low, high = (float(value.strip("[],")) for value in line.split()[5:])
        assert mean == pytest.approx(second_acr - first_acr, abs=6e-5), "the second minus the first"
        assert high - low == pytest.approx(2 * 1.965 * error, abs=4e-4)
        assert low <= 0 <= high, "bfloat16 costs no robustness that these images could show"


def test_a_table_of_the_fields_form_stands_beside_ours_on_the_images_that_both_have(tmp_path):
    theirs = field_table(tmp_path / "digits_smoothmix_sigma0.50_step1.tsv")
    lines = compare(theirs, DIGITS, RADII).splitlines()
    assert lines[0] == f"images: 225 shared, of 225 in {theirs.name} and 450 in digits"
    level, method, images, own, ours, mean, error, low, high = lines[3].split()
    first, second = table.read(theirs), table.read(OURS / "table.tsv.gz")[::2]
    expected = paired_acr_difference(first, second)
    assert (level, method, images) == ("0.5", "smoothmix", "225"), "the sigma is in the name, as are other digits"
    assert [float(own), float(ours)] == pytest.approx(
        [certified_radii(rows).mean() for rows in (first, second)], abs=1e-4
    )
    numbers = [float(value.strip("[],")) for value in (mean, error, low, high)]
    assert numbers == pytest.approx([expected.mean, expected.standard_error, expected.low, expected.high], abs=6e-5)
    accuracies = [line.split() for line in lines[-2:]]
    assert [cells[2] for cells in accuracies] == [theirs.name, "digits"]
    assert accuracies[1][-1] == "–", "no model can be certified at 2.0 by n samples"
    assert float(accuracies[0][-3]) == pytest.approx((first["predict"] == first["label"]).mean(), abs=5e-4)


def test_a_folder_of_tables_is_paired_by_method_and_noise_level(tmp_path):
    for name in ("smoothmix_0.50.tsv", "gaussian_0.50.tsv", "smoothmix_0.12.tsv"):
        field_table(tmp_path / name)
    packed = tmp_path / "smoothmix_0.50.tsv"
    packed.with_name("smoothmix_0.50.tsv.gz").write_bytes(gzip.compress(packed.read_bytes()))
    packed.unlink()
    lines = compare(DIGITS, tmp_path, RADII).splitlines()
    pairs = [line.split()[:2] for line in lines[3 : lines.index("") - 1]]
    assert pairs == [["0.5", "smoothmix"]]


def test_our_own_table_counts_by_its_one_class_radii(tmp_path):
    own = tmp_path / "own"
    shutil.copytree(OURS, own)
    identity = json.loads((own / "identity.json").read_text())
    rows = rebound(table.read(own / "table.tsv.gz"), identity, "two_class")
    rows.to_csv(own / "table.tsv.gz", sep="\t", index=False)
    (own / "identity.json").write_text(json.dumps(identity | {"bound": "two_class"}))
    assert rows["radius"].mean() > table.read(OURS / "table.tsv.gz")["radius"].mean()
    line = compare(own / "table.tsv.gz", RUN, RADII).splitlines()[2]
    assert line.split()[-4:-2] == ["+0.0000", "0.0000"]


# --- what is refused ---------------------------------------------------------------------------------------------


def test_no_shared_image_and_other_labels_are_refused(tmp_path):
    far = field_table(tmp_path / "far_0.50.tsv", idx=range(1000, 1225))
    with pytest.raises(ValueError, match=r"far_0\.50\.tsv and 0.5 share no image: certify the same ones"):
        compare(far, RUN, RADII)
    rows = table.read(OURS / "table.tsv.gz")[::2]
    shifted = field_table(tmp_path / "shifted_0.50.tsv", correct=0)
    with pytest.raises(ValueError, match=r"correct. is not predict == label"):
        compare(shifted, RUN, RADII)
    wrong = rows.assign(label=(rows["label"] + 1) % 10)
    correct = (wrong["predict"] == wrong["label"]).astype(int)
    shifted = field_table(tmp_path / "shifted_0.50.tsv", label=wrong["label"], correct=correct)
    with pytest.raises(ValueError, match="225 labels of 225 differ: image 0 is of class"):
        compare(shifted, RUN, RADII)
    with pytest.raises(ValueError, match="these are not the same images"):
        compare(RUN, ROOT / "results/mnist_3_epochs/smoothmix/0.5/outputs/certificates/0.5/table.tsv.gz", RADII)


def test_another_noise_level_and_a_torn_table_are_refused(tmp_path):
    other = field_table(tmp_path / "smoothmix_sigma0.12.tsv")
    with pytest.raises(
        ValueError, match=r"no pair .*: .* has smoothmix at sigma 0\.12; 0\.5 has smoothmix at sigma 0\.5"
    ):
        compare(other, RUN, RADII)
    torn = tmp_path / "torn_0.50.tsv"
    torn.write_bytes(other.read_bytes()[:4001].rpartition(b"\t")[0].rpartition(b"\t")[0])
    with pytest.raises(ValueError, match=r"torn_0\.50\.tsv is torn.*or fetch the file again"):
        compare(torn, RUN, RADII)


def test_a_folder_without_tables_or_with_unnamed_ones_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is no table and holds no finished run and no table METHOD_SIGMA"):
        compare(tmp_path, RUN, RADII)
    field_table(tmp_path / "mine.tsv")
    with pytest.raises(ValueError, match=r"table of no known sigma, mine: name it METHOD_SIGMA\.tsv"):
        compare(tmp_path, RUN, RADII)
    lines = compare(tmp_path / "mine.tsv", RUN, RADII).splitlines()
    assert lines[3].split()[:4] == ["0.5", "mine", "/", "smoothmix"], "named by itself it needs no sigma"


def test_our_table_without_its_identity_and_preset_radii_are_refused(tmp_path):
    shutil.copy(OURS / "table.tsv.gz", tmp_path / "table.tsv.gz")
    with pytest.raises(ValueError, match=r"table\.tsv\.gz has no identity\.json beside it.*: copy it along"):
        compare(tmp_path / "table.tsv.gz", RUN, RADII)
    identity = json.loads((OURS / "identity.json").read_text()) | {"mode": "sequential", "radii": [0.5]}
    (tmp_path / "identity.json").write_text(json.dumps(identity))
    with pytest.raises(ValueError, match=r"table at sigma 0\.5 has preset radii, and so no ACR"):
        compare(tmp_path / "table.tsv.gz", RUN, RADII)


# --- published logs ----------------------------------------------------------------------------------------------


def test_published_tables_are_compared_with_our_runs():
    if "PUBLISHED_LOGS" not in os.environ:
        pytest.skip("the environment variable PUBLISHED_LOGS does not name the folder of the published logs")
    logs = Path(os.environ["PUBLISHED_LOGS"])
    pair = [logs / f"cifar10_{name}.tsv" for name in ("consistency_sigma0.50", "smoothmix_sigma0.50_step1")]
    line = compare(*pair, RADII).splitlines()[2].split()
    assert line[:5] == ["0.5", "consistency", "/", "smoothmix", "10,000"]
    assert line[7:9] == ["+0.0161", "0.0028"]
    ours = ROOT / "results/mnist_3_epochs/smoothmix/1.0"
    lines = compare(logs / "mnist_smoothmix_sigma1.00_step0_run21.tsv", ours, RADII).splitlines()
    assert lines[0] == "images: 250 shared, of 10,000 in mnist_smoothmix_sigma1.00_step0_run21.tsv and 250 in 1.0"
    level, method, images, _, _, mean, *_ = lines[3].split()
    acr = json.loads((ours / "metrics.json").read_text())["1.0"]["acr_one_class"]
    theirs = pd.read_csv(logs / "mnist_smoothmix_sigma1.00_step0_run21.tsv", sep="\t")[::40]
    assert (level, method, images) == ("1.0", "smoothmix", "250")
    assert float(mean) == pytest.approx(acr - (theirs["radius"] * theirs["correct"]).mean(), abs=6e-5)
