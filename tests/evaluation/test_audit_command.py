"""The audit of a whole table, by its parts and as the command: honest tables stand; relabelled, incomplete, moved and
forged ones do not, nor those of another noise."""

import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.exceptions import MlflowException

from components.certification import table
from components.certification.bounds import certified_radius, probability_bounds
from components.certification.noise.discrete_normal import discrete_normal
from components.data.prepared import Split
from components.evaluation.audit import missing_or_moved, other_labels, other_noise
from components.evaluation.verdict import Certified
from components.registry.tracking import CONTENT
from pipelines import audit
from tests.evaluation.test_audit import FAILURE_PROB, SIGMA, TWO_CLASS, row_of
from tests.support.half_spaces import GRID, HalfSpaces, sampler_of
from tests.support.procedures import certify_image

# --- the images that a table is of -------------------------------------------------------------------------------

LABELS = np.arange(20) % 3
WHICH = {"every": 5, "images": 4}
named_or_older = pytest.mark.parametrize("identity", [WHICH, {}], ids=["named in the identity", "an older table"])


def rows_of(indices):
    return pd.DataFrame({"idx": indices, "label": LABELS[indices]})


@named_or_older
def test_a_row_for_each_image_with_its_label_fits(identity):
    assert other_labels(rows_of([0, 5, 10, 15]), LABELS) == []
    assert missing_or_moved(rows_of([0, 5, 10, 15]), 20, identity) == []


@pytest.mark.parametrize("every", [1, 3, 19, 20, 50])
def test_any_step_fits(every):
    indices = list(range(0, 20, every))
    assert missing_or_moved(rows_of(indices), 20, {"every": every, "images": len(indices)}) == []
    assert missing_or_moved(rows_of(indices), 20, {}) == []


def test_labels_set_to_the_predictions_are_found():
    rows = rows_of([0, 5, 10, 15])
    rows.loc[[1, 3], "label"] += 1
    (finding,) = other_labels(rows, LABELS)
    assert finding == "2 rows have another label than the test split (images 5, 15)"


@pytest.mark.parametrize(
    ("indices", "said"),
    [([0, 5, 15], "without 10"), ([0, 5, 10], "without 15"), ([0, 5, 7, 10, 15], "with 7"), ([0, 5, 15, 10], "moved")],
)
@named_or_older
def test_images_that_were_dropped_added_or_moved_are_found(indices, said, identity):
    (finding,) = missing_or_moved(rows_of(indices), 20, identity)
    assert finding == f"its rows are not those of images 0, 5, 10, ...: {said}"


@pytest.mark.parametrize("indices", [[5, 10, 15], [0, 10], [0]])
def test_the_identity_tells_what_an_older_table_s_rows_alone_may_hide(indices):
    assert missing_or_moved(rows_of(indices), 20, WHICH)


@pytest.mark.parametrize("change", [{"images": 5}, {"every": 4}, {"every": 0}, {"every": "5"}])
def test_an_identity_that_contradicts_itself_is_found(change):
    assert missing_or_moved(rows_of([0, 5, 10, 15]), 20, WHICH | change)


@pytest.mark.parametrize("index", [20, -1, 2.5])
def test_a_row_of_no_image_is_found(index):
    rows = pd.DataFrame({"idx": [0, 5, index], "label": 0})
    assert "1 row is of images that the test split does not have" in other_labels(rows, LABELS)[0]
    assert missing_or_moved(rows, 20, WHICH)


# --- the noise that a table was made with -------------------------------------------------------------------------

EXACT = TWO_CLASS | {"arithmetic": "exact", "grid": GRID, "thresholds_sha256": discrete_normal(SIGMA, GRID).sha256}


def test_a_table_of_the_model_s_noise_fits():
    assert other_noise(pd.DataFrame([row_of(0, [60, 940, 0])]), EXACT, SIGMA, GRID) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"grid": 255}, "grid 255"),
        ({"grid": None}, "grid None"),
        ({"thresholds_sha256": "ab"}, "thresholds_sha256 'ab'"),
        ({"thresholds_sha256": discrete_normal(SIGMA, 255).sha256}, "thresholds_sha256"),
        ({"thresholds_sha256": discrete_normal(0.4, GRID).sha256}, "thresholds_sha256"),
        ({"arithmetic": "mixed"}, "arithmetic 'mixed'"),
    ],
)
def test_another_grid_and_other_thresholds_are_found(change, said):
    (finding,) = other_noise(pd.DataFrame([row_of(0, [60, 940, 0])]), EXACT | change, SIGMA, GRID)
    assert said in finding


@pytest.mark.parametrize(("lost", "rows", "identity"), [(1, 100, EXACT), (1, 99, EXACT), (2, 199, EXACT), (1, 500, {})])
def test_more_lost_samples_than_the_noise_can_lose_are_found(lost, rows, identity):
    """One in 100,000 is let pass, and none where the noise was drawn in floating point, which loses none."""
    frame = pd.DataFrame([row_of(index, [60, 940 - lost * (index == 0), 0]) for index in range(rows)])
    found = other_noise(frame, identity, SIGMA, GRID)
    assert bool(found) == (rows != 100), found


# --- the command -------------------------------------------------------------------------------------------------


@pytest.fixture(params=["two_class"])
def registered(request, monkeypatch, tmp_path):
    """What the command meets in the registry and on disk: a half-space classifier and its honest table of 12 images."""
    pixels = np.random.default_rng(0).integers(0, 256, (12, 1, 2, 2)).astype(np.uint8)
    images = torch.from_numpy(pixels).int()  # in steps of the grid: here a pixel of GRID would stand for 1.0
    network = HalfSpaces([1.0, -0.5, 0.3, 0.2], -0.5)
    sampler = sampler_of(network, images[0], sigma=SIGMA)
    split = Split(pixels, np.array([int(network.distance(image) > 0) for image in images]))
    procedure = {"n0": 100, "n": 10_000, "failure_prob": FAILURE_PROB, "bound": request.param}
    lines = []
    for index, image in enumerate(images):
        certificate = certify_image(sampler, image, seed=1, index=index, **procedure)
        lines.append(table.format_row(index, int(split.labels[index]), certificate))
    table.write(tmp_path / "table.tsv", lines)
    rows = table.read(tmp_path / "table.tsv")
    rows.attrs["content"] = "c"
    identity = EXACT | procedure | {"weights_sha256": "w", "images_sha256": split.sha256, "every": 1, "images": 12}
    card = SimpleNamespace(weights_sha256="w", content={"weights_sha256": "w"}, sigma=SIGMA, grid=GRID)
    certified = Certified(rows, identity)
    monkeypatch.setattr(audit, "load_classifier", lambda uri: SimpleNamespace(card=card, sampler=sampler))
    monkeypatch.setattr(audit, "find_version", lambda uri: SimpleNamespace(tags={CONTENT: "c"}))
    monkeypatch.setattr(audit, "run_table", lambda version: certified)
    monkeypatch.setattr(audit, "open_split", lambda folder, root: split)
    monkeypatch.setattr(audit, "load_description", lambda path: SimpleNamespace(max_value=GRID))
    monkeypatch.setattr(audit, "use_store", lambda store: None)
    return certified


KINDS = ["files", "images and labels", "completeness and order", "arithmetic", "noise distribution", "fresh noise"]


def outcomes(said):
    """What the command says of each kind of check: `ok`, or what it found."""
    lines = {line.split(": ")[0]: line.rpartition(": ")[2] for line in said.splitlines()}
    assert [kind for kind in lines if kind in KINDS] == KINDS, said
    return {kind: lines[kind] for kind in KINDS}


def run(monkeypatch, *options):
    """The command's exit code."""
    monkeypatch.setattr(sys, "argv", ["audit", "--model", "models:/a@champion", *options])
    with pytest.raises(SystemExit) as ended:
        audit.main()
    return ended.value.code


@pytest.mark.parametrize("registered", ["one_class", "two_class"], indirect=True)
def test_an_honest_table_stands_and_the_command_says_what_it_does(registered, monkeypatch, capsys):
    assert run(monkeypatch, "--images", "12") == 0
    said = capsys.readouterr()
    assert "the table stands" in said.out
    assert set(outcomes(said.out).values()) == {"ok"}
    assert f"from their counts by the {registered.identity['bound']} bound" in said.out
    for step in ("loading models:/a@champion", "fresh noise: 12/12 images"):
        assert step in said.err


@pytest.mark.parametrize("registered", ["one_class"], indirect=True)
def test_an_older_table_stands_and_the_command_says_what_it_could_not_read(registered, monkeypatch, capsys):
    for fact in ("every", "images", "bound", "arithmetic", "grid", "thresholds_sha256"):
        del registered.identity[fact]
    registered.table.drop(columns="p_upper", inplace=True)
    assert run(monkeypatch, "--images", "12") == 0
    said = capsys.readouterr().out
    assert set(outcomes(said).values()) == {"ok"}
    for missing in (
        "whose identity does not say it",
        "by the one_class bound",
        "in exact arithmetic, which the table's",
    ):
        assert missing in said


def relabel(rows, identity):
    rows.loc[3, "label"] = 1 - rows["label"][3]
    rows["correct"] = (rows["predict"] == rows["label"]).astype(int)


def drop(rows, identity):
    rows.drop(index=[4, 7], inplace=True)


def move(rows, identity):
    rows.loc[[4, 7]] = rows.loc[[7, 4]].to_numpy()


def lower_p_upper(rows, identity):
    rows.loc[5, "p_upper"] /= 2


def forge_counts(rows, identity):
    """Rows that follow from counts which nobody drew."""
    for index in rows.index[rows["predict"] != -1][:3]:
        counts = [0, 0]
        counts[rows["selected"][index]] = 10_000
        p_lower, p_upper = probability_bounds("two_class", counts, rows["selected"][index], 10_000, FAILURE_PROB)
        written = [" ".join(map(str, counts)), p_lower, p_upper, certified_radius(p_lower, SIGMA, p_upper)]
        rows.loc[index, ["counts", "p_lower", "p_upper", "radius"]] = written


@pytest.mark.parametrize(
    ("tamper", "kind", "finding"),
    [
        (relabel, "images and labels", "1 row has another label than the test split (images 3)"),
        (drop, "completeness and order", "without 4, 7"),
        (move, "completeness and order", "moved"),
        (lower_p_upper, "arithmetic", "1 row claims more than its counts give (images 5)"),
        (forge_counts, "fresh noise", "fresh noise contradicts 3 rows"),
        (lambda rows, identity: identity.update(grid=255), "noise distribution", "its identity says grid 255"),
        (
            lambda rows, identity: identity.update(thresholds_sha256="ab"),
            "noise distribution",
            "thresholds_sha256 'ab'",
        ),
        (lambda rows, identity: identity.update(sigma=0.6), "files", "its identity says another sigma"),
        (lambda rows, identity: rows.attrs.update(content="d"), "files", "table.tsv is not the file registered"),
    ],
)
def test_what_was_tampered_with_is_found_and_named_by_its_kind(registered, monkeypatch, capsys, tamper, kind, finding):
    tamper(registered.table, registered.identity)
    assert run(monkeypatch, "--images", "12") == 1
    said = capsys.readouterr().out
    assert finding in said
    assert "DOES NOT STAND" in said
    assert outcomes(said)[kind] != "ok"
    assert outcomes(said)["fresh noise"] == "ok" or tamper is forge_counts


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
    ("options", "said"),
    [(("--n", "9"), "at least 11 fresh samples are needed"), (("--images", "1"), "1 row is too few")],
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
