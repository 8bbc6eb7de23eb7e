"""The audit: honest tables stand; inflated, relabelled and incomplete ones do not."""

import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.exceptions import MlflowException
from scipy.stats import binom

from components.certification import table
from components.certification.bounds import certified_radius, lower_bound
from components.certification.cohen import certifying
from components.certification.sampling import answered
from components.data.prepared import Split
from components.evaluation.audit import (
    claimed_probability,
    contradictions_needed,
    inconsistent_rows,
    is_contradicted,
    unlike_the_images,
)
from components.evaluation.verdict import Certified
from components.registry.tracking import CONTENT
from pipelines import audit
from tests.support.half_spaces import HalfSpaces, sampler_of

SIGMA, FAILURE_PROB, N = 0.5, 0.001, 1000
IDENTITY = {"mode": "reference", "sigma": SIGMA, "failure_prob": FAILURE_PROB}


def honest_row(index, p, random):
    """What the reference procedure writes of an image whose class has probability `p`, with N samples."""
    k = int(random.binomial(N, p))
    p_lower = lower_bound(k, N, FAILURE_PROB)
    certified = p_lower > 0.5
    return {
        "idx": index,
        "label": 1,
        "predict": 1 if certified else -1,
        "radius": certified_radius(p_lower, SIGMA) if certified else 0.0,
        "correct": int(certified),
        "selected": 1,
        "counts": f"{N - k} {k}",
        "n0": 100,
        "n": N,
        "p_lower": p_lower,
    }


def contradicted(row, p, random, n=N):
    claimed = claimed_probability(row["predict"], row["p_lower"], row["radius"], SIGMA)
    return bool(claimed) and is_contradicted(int(random.binomial(n, p)), n, claimed, FAILURE_PROB)


@pytest.fixture
def random():
    return np.random.default_rng(0)


@pytest.mark.parametrize("p", [0.45, 0.55, 0.9, 0.999])
def test_an_honest_row_is_contradicted_no_more_often_than_is_said(p, random):
    times = sum(contradicted(honest_row(0, p, random), p, random) for _ in range(4000))
    assert times <= binom.ppf(1 - 1e-6, 4000, 2 * FAILURE_PROB)


@pytest.mark.parametrize("images", [1, 10, 50, 450])
def test_an_honest_table_falls_no_more_often_than_is_said(images):
    needed = contradictions_needed(images, FAILURE_PROB, false_alarm=0.001)
    assert binom.sf(needed - 1, images, 2 * FAILURE_PROB) <= 0.001
    assert needed == 1 or binom.sf(needed - 2, images, 2 * FAILURE_PROB) > 0.001


def test_radii_inflated_by_thirty_percent_are_contradicted_by_fresh_noise(random):
    chances = random.uniform(0.6, 0.97, 50)
    rows = [honest_row(index, p, random) for index, p in enumerate(chances)]
    inflated = [row | {"radius": 1.3 * row["radius"]} for row in rows]
    needed = contradictions_needed(len(rows), FAILURE_PROB, false_alarm=0.001)
    assert sum(contradicted(row, p, random, n=10_000) for row, p in zip(rows, chances, strict=True)) < needed
    assert sum(contradicted(row, p, random, n=10_000) for row, p in zip(inflated, chances, strict=True)) > 10 * needed


def test_another_class_than_the_certified_one_is_contradicted(random):
    row = honest_row(0, 0.99, random)
    assert contradicted(row, 0.01, random)


def test_a_row_that_abstains_claims_nothing():
    assert claimed_probability(-1, 0.3, 0.0, SIGMA) == 0.0


@pytest.mark.parametrize(
    "change",
    [
        {"radius": 0.9},
        {"p_lower": 0.99},
        {"predict": 0},
        {"counts": "0 999"},
        {"correct": 0},
        {"predict": -1, "correct": 0},
    ],
)
def test_a_row_that_claims_more_than_its_counts_is_found(change, random):
    rows = [honest_row(index, 0.8, random) for index in range(5)]
    assert inconsistent_rows(pd.DataFrame(rows), IDENTITY) == []
    rows[3] |= change
    assert inconsistent_rows(pd.DataFrame(rows), IDENTITY) == [3]


def test_preset_radii_follow_from_their_looks():
    identity = IDENTITY | {"mode": "sequential", "radii": [0.1, 0.5], "reject_prob": 1e-4}
    row = {"idx": 7, "label": 1, "predict": 1, "radius": 0.1, "correct": 1, "selected": 1, "n0": 100}
    row |= {"counts": "20 180", "n": 200, "p_lower": 0.6, "decisions": "accept undecided", "looks": "45/50 180/200"}
    assert inconsistent_rows(pd.DataFrame([row]), identity) == []
    for change in ({"radius": 0.5}, {"p_lower": 0.9}, {"looks": "45/50 190/200"}, {"looks": "20/50 180/200"}):
        assert inconsistent_rows(pd.DataFrame([row | change]), identity) == [7]


# --- the images that a table is of -------------------------------------------------------------------------------

LABELS = np.arange(20) % 3
WHICH = {"every": 5, "images": 4}


def rows_of(indices):
    return pd.DataFrame({"idx": indices, "label": LABELS[indices]})


@pytest.mark.parametrize("identity", [WHICH, {}], ids=["named in the identity", "an older table"])
def test_a_row_for_each_image_with_its_label_fits(identity):
    assert unlike_the_images(rows_of([0, 5, 10, 15]), LABELS, identity) == []


@pytest.mark.parametrize("every", [1, 3, 19, 20, 50])
def test_any_step_fits(every):
    indices = list(range(0, 20, every))
    assert unlike_the_images(rows_of(indices), LABELS, {"every": every, "images": len(indices)}) == []
    assert unlike_the_images(rows_of(indices), LABELS, {}) == []


@pytest.mark.parametrize("identity", [WHICH, {}], ids=["named in the identity", "an older table"])
def test_labels_set_to_the_predictions_are_found(identity):
    rows = rows_of([0, 5, 10, 15])
    rows.loc[[1, 3], "label"] += 1
    (finding,) = unlike_the_images(rows, LABELS, identity)
    assert finding == "2 rows have another label than the test split (images 5, 15)"


@pytest.mark.parametrize(
    ("indices", "said"),
    [([0, 5, 15], "without 10"), ([0, 5, 10], "without 15"), ([0, 5, 7, 10, 15], "with 7"), ([0, 5, 15, 10], "moved")],
)
@pytest.mark.parametrize("identity", [WHICH, {}], ids=["named in the identity", "an older table"])
def test_images_that_were_dropped_added_or_moved_are_found(indices, said, identity):
    (finding,) = unlike_the_images(rows_of(indices), LABELS, identity)
    assert finding == f"its rows are not those of images 0, 5, 10, ...: {said}"


@pytest.mark.parametrize("indices", [[5, 10, 15], [0, 10], [0]])
def test_the_identity_tells_what_an_older_table_s_rows_alone_may_hide(indices):
    assert unlike_the_images(rows_of(indices), LABELS, WHICH)


@pytest.mark.parametrize("change", [{"images": 5}, {"every": 4}, {"every": 0}, {"every": "5"}])
def test_an_identity_that_contradicts_itself_is_found(change):
    assert unlike_the_images(rows_of([0, 5, 10, 15]), LABELS, WHICH | change)


@pytest.mark.parametrize("index", [20, -1, 2.5])
def test_a_row_of_no_image_is_found(index):
    rows = pd.DataFrame({"idx": [0, 5, index], "label": 0})
    assert "1 row is of images that the test split does not have" in unlike_the_images(rows, LABELS, WHICH)[0]


# --- the command -------------------------------------------------------------------------------------------------


@pytest.fixture
def registered(monkeypatch, tmp_path):
    """What the command meets in the registry and on disk: a half-space classifier and its honest table of 12 images."""
    pixels = np.random.default_rng(0).integers(0, 256, (12, 1, 2, 2)).astype(np.uint8)
    network = HalfSpaces([1.0, -0.5, 0.3, 0.2], -0.5)
    sampler = sampler_of(network, torch.zeros(1, 2, 2), sigma=SIGMA)
    images = torch.from_numpy(pixels).float() / 255
    split = Split(pixels, np.array([int(network.distance(image) > 0) for image in images]))
    lines = []
    for index, image in enumerate(images):
        procedure = certifying(SIGMA, n0=100, n=10_000, failure_prob=FAILURE_PROB)
        certificate = answered(procedure, sampler.stream(image, seed=1, index=index).count)
        lines.append(table.format_row(index, int(split.labels[index]), certificate))
    table.write(tmp_path / "table.tsv", lines)
    rows = table.read(tmp_path / "table.tsv")
    rows.attrs["content"] = "c"
    identity = IDENTITY | {"weights_sha256": "w", "images_sha256": split.sha256, "every": 1, "images": 12}
    card = SimpleNamespace(weights_sha256="w", sigma=SIGMA)
    certified = Certified(rows, identity)
    monkeypatch.setattr(audit, "load_classifier", lambda uri: SimpleNamespace(card=card, sampler=sampler))
    monkeypatch.setattr(audit, "find_version", lambda uri: SimpleNamespace(tags={CONTENT: "c"}))
    monkeypatch.setattr(audit, "run_table", lambda version: certified)
    monkeypatch.setattr(audit, "open_split", lambda folder, root: split)
    monkeypatch.setattr(audit, "load_description", lambda path: SimpleNamespace(max_value=255))
    monkeypatch.setattr(audit, "use_store", lambda store: None)
    return certified


def run(monkeypatch, *options):
    """The command's exit code."""
    monkeypatch.setattr(sys, "argv", ["audit", "--model", "models:/a@champion", *options])
    with pytest.raises(SystemExit) as ended:
        audit.main()
    return ended.value.code


def test_an_honest_table_stands_and_the_command_says_what_it_does(registered, monkeypatch, capsys):
    assert run(monkeypatch, "--images", "12") == 0
    said = capsys.readouterr()
    assert "the table stands" in said.out
    for step in ("loading models:/a@champion", "checking 12 rows", "fresh noise: 12/12 images"):
        assert step in said.err


def test_an_older_table_stands_and_the_command_says_what_it_could_not_read(registered, monkeypatch, capsys):
    del registered.identity["every"], registered.identity["images"]
    assert run(monkeypatch, "--images", "12") == 0
    assert "an older table" in capsys.readouterr().out


def test_a_table_whose_labels_are_its_predictions_does_not_stand(registered, monkeypatch, capsys):
    registered.table.loc[3, "label"] = 1 - registered.table["label"][3]
    registered.table["correct"] = (registered.table["predict"] == registered.table["label"]).astype(int)
    assert run(monkeypatch, "--images", "12") == 1
    assert "1 row has another label than the test split (images 3)" in capsys.readouterr().out


def test_a_table_without_its_hard_images_does_not_stand(registered, monkeypatch, capsys):
    registered.table.drop(index=[4, 7], inplace=True)
    assert run(monkeypatch, "--images", "10") == 1
    assert "without 4, 7" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options",
    [
        ("--n", "0"),
        ("--n", "-5"),
        ("--n", "many"),
        ("--images", "0"),
        ("--images", "-1"),
        ("--false-alarm", "0"),
        ("--false-alarm", "nan"),
        ("--false-alarm", "1"),
    ],
)
def test_what_nothing_could_speak_against_is_refused_at_the_command_line(registered, monkeypatch, capsys, options):
    assert run(monkeypatch, *options) == 2
    assert options[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"), [(("--n", "9"), "fewer than 10 fresh samples"), (("--images", "1"), "1 row is too few")]
)
def test_a_trial_that_no_table_could_fail_is_no_trial(registered, monkeypatch, capsys, options, said):
    assert run(monkeypatch, *options) == 1
    answer = capsys.readouterr()
    assert said in answer.err
    assert "stands" not in answer.out


@pytest.mark.parametrize(
    "error",
    [
        MlflowException("connection refused\nfor the second time"),
        FloatingPointError("image 3: a logit is not finite"),
        ConnectionError("no route to host"),
    ],
)
def test_what_cannot_be_tried_is_one_line(registered, monkeypatch, capsys, error):
    def fail(version):
        raise error

    monkeypatch.setattr(audit, "run_table", fail)
    assert run(monkeypatch) == 1
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith("error: ")
    assert str(error).splitlines()[0] in last
