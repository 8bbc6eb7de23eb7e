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
from components.certification.bounds import certified_radius, lower_bound, probability_bounds, upper_bound
from components.certification.noise.discrete_normal import discrete_normal
from components.data.prepared import Split
from components.evaluation.audit import (
    contradicted_claims,
    contradictions_needed,
    inconsistent_rows,
    missing_or_moved,
    other_labels,
    other_noise,
)
from components.evaluation.verdict import Certified
from components.params import RIVAL_SHARE
from components.registry.tracking import CONTENT
from pipelines import audit
from tests.support.half_spaces import GRID, HalfSpaces, sampler_of
from tests.support.procedures import certify_image

SIGMA, FAILURE_PROB, N = 0.5, 0.001, 1000
IDENTITY = {"mode": "reference", "sigma": SIGMA, "failure_prob": FAILURE_PROB, "n": N}
ONE_CLASS, TWO_CLASS = IDENTITY | {"bound": "one_class"}, IDENTITY | {"bound": "two_class"}
both_bounds = pytest.mark.parametrize("identity", [ONE_CLASS, TWO_CLASS], ids=["one_class", "two_class"])


def row_of(index, counts, identity=TWO_CLASS, label=1):
    """What the reference procedure writes of an image whose class 1 was selected, with these counts of N samples."""
    p_lower, p_upper = probability_bounds(identity["bound"], counts, 1, N, FAILURE_PROB)
    certified = p_lower > p_upper
    return {
        "idx": index,
        "label": label,
        "predict": 1 if certified else -1,
        "radius": certified_radius(p_lower, SIGMA, p_upper) if certified else 0.0,
        "correct": int(certified and label == 1),
        "selected": 1,
        "counts": " ".join(map(str, counts)),
        "n0": 100,
        "n": N,
        "p_lower": p_lower,
        "p_upper": p_upper,
    }


def honest_row(index, p, random, identity=TWO_CLASS):
    """The same of samples of an image whose classes have the probabilities `p`."""
    return row_of(index, random.multinomial(N, p).tolist(), identity)


def around(p, classes=3):
    """Class 1 has probability `p`, class 0 two thirds of the rest, and the others share what is left."""
    rest = (1 - p) / 3
    return [2 * rest, p, *[rest / (classes - 2)] * (classes - 2)]


def contradicted(row, p, random, identity=TWO_CLASS, n=N):
    return bool(contradicted_claims(row, random.multinomial(n, p), n, identity))


@pytest.fixture
def random():
    return np.random.default_rng(0)


# --- fresh noise --------------------------------------------------------------------------------------------------


@both_bounds
@pytest.mark.parametrize("p", [0.42, 0.45, 0.55, 0.9, 0.999])
def test_an_honest_row_is_contradicted_no_more_often_than_is_said(p, identity, random):
    p = around(p, classes=10)
    times = sum(contradicted(honest_row(0, p, random, identity), p, random, identity) for _ in range(2000))
    assert times <= binom.ppf(1 - 1e-6, 2000, 2 * FAILURE_PROB)


def test_whichever_rival_comes_out_strongest_a_right_row_is_hardly_contradicted(random):
    """A hundred rivals, each exactly as probable as p_upper allows: a test of the strongest as if it had been named
    beforehand contradicts far too often."""
    identity = TWO_CLASS | {"failure_prob": 0.01}
    p = [0.006, 0.4, *[0.006] * 99]
    row = row_of(0, [6, 400, *[6] * 99]) | {"predict": 1, "p_lower": 0.4, "p_upper": 0.006}
    fresh = random.multinomial(N, p, size=2000)
    times = sum(bool(contradicted_claims(row, hits, N, identity)) for hits in fresh)
    named_beforehand = binom.sf(np.delete(fresh, 1, axis=1).max(axis=1) - 1, N, 0.006) <= RIVAL_SHARE * 0.01
    assert times <= binom.ppf(1 - 1e-6, 2000, 0.01) < named_beforehand.sum()


@pytest.mark.parametrize("images", [1, 10, 50, 450])
def test_an_honest_table_falls_no_more_often_than_is_said(images):
    needed = contradictions_needed(images, FAILURE_PROB, false_alarm=0.001)
    assert binom.sf(needed - 1, images, 2 * FAILURE_PROB) <= 0.001
    assert needed == 1 or binom.sf(needed - 2, images, 2 * FAILURE_PROB) > 0.001


def test_radii_inflated_by_thirty_percent_are_contradicted_by_fresh_noise(random):
    """Of the one-class bound, under which a radius is a claim about the class alone."""
    chances = [around(p) for p in random.uniform(0.6, 0.97, 50)]
    rows = [honest_row(index, p, random, ONE_CLASS) for index, p in enumerate(chances)]
    inflated = [row | {"radius": 1.3 * row["radius"]} for row in rows]
    needed = contradictions_needed(len(rows), FAILURE_PROB, false_alarm=0.001)

    def fallen(table):
        return sum(contradicted(row, p, random, ONE_CLASS, n=10_000) for row, p in zip(table, chances, strict=True))

    assert fallen(rows) < needed
    assert fallen(inflated) > 10 * needed


@both_bounds
def test_another_class_than_the_certified_one_is_contradicted(identity, random):
    assert contradicted(honest_row(0, around(0.99), random, identity), around(0.01), random, identity)


@pytest.mark.parametrize("rival", [0, 2, 3])
def test_a_rival_that_is_stronger_than_its_bound_is_contradicted_whichever_it_is(rival, random):
    """Counts in which it is not seen agree with the row: only fresh noise can tell."""
    p = [0.05, 0.6, 0.05, 0.05, 0.25]
    p[rival], p[4] = p[4], p[rival]
    row = row_of(0, [100, 600, 100, 100, 100])
    assert inconsistent_rows(pd.DataFrame([row]), TWO_CLASS) == []
    (said,) = contradicted_claims(row, random.multinomial(10_000, p), 10_000, TWO_CLASS)
    assert said.startswith("no other class than 1 may have more than 0.1")


def test_the_bound_on_rivals_is_no_claim_of_a_one_class_table(random):
    row = row_of(0, [100, 600, 300], ONE_CLASS) | {"p_upper": 0.01}
    assert not contradicted(row, [0.1, 0.6, 0.3], random, ONE_CLASS)


@both_bounds
def test_a_row_that_abstains_claims_nothing(identity, random):
    assert not contradicted(row_of(0, [500, 500, 0], identity), [0.98, 0.01, 0.01], random, identity)


def test_lost_fresh_samples_contradict_nothing():
    row = row_of(0, [0, N, 0])
    assert contradicted_claims(row, np.array([100, 900, 0]), N, TWO_CLASS)
    assert not contradicted_claims(row, np.array([0, 900, 0]), N, TWO_CLASS)


def test_a_class_that_the_model_has_not_is_contradicted():
    assert contradicted_claims(row_of(0, [0, N, 0]) | {"predict": 3}, np.array([0, N, 0]), N, TWO_CLASS)


# --- arithmetic ---------------------------------------------------------------------------------------------------


@both_bounds
@pytest.mark.parametrize(
    "change",
    [
        {"radius": 0.9},
        {"p_lower": 0.99},
        {"p_upper": 0.01},
        {"predict": 0},
        {"counts": "0 999 2"},
        {"counts": "0 1500 -500"},
        {"selected": 7, "predict": 7},
        {"correct": 0},
        {"predict": -1, "correct": 0},
        {"n": 999},
        {"n": 1001},
    ],
    ids=str,
)
def test_a_row_that_claims_more_than_its_counts_is_found(change, identity, random):
    rows = [honest_row(index, around(0.8), random, identity) for index in range(5)]
    assert inconsistent_rows(pd.DataFrame(rows), identity) == []
    rows[3] |= change
    assert inconsistent_rows(pd.DataFrame(rows), identity) == [3]


def with_radius(row, p_lower, p_upper):
    return row | {"p_lower": p_lower, "p_upper": p_upper, "radius": certified_radius(p_lower, SIGMA, p_upper)}


def test_the_larger_radius_of_both_bounds_is_found():
    row, one_class = row_of(3, [60, 940, 0]), row_of(3, [60, 940, 0], ONE_CLASS)
    assert one_class["radius"] > row["radius"]
    assert inconsistent_rows(pd.DataFrame([row | {"radius": one_class["radius"]}]), TWO_CLASS) == [3]
    assert inconsistent_rows(pd.DataFrame([one_class]), TWO_CLASS) == [3]
    both_at_full_failure_prob = with_radius(row, row["p_lower"], upper_bound(60, N, FAILURE_PROB))
    assert inconsistent_rows(pd.DataFrame([both_at_full_failure_prob]), TWO_CLASS) == [3]


def test_a_rival_that_was_fixed_instead_of_the_strongest_is_found():
    row = row_of(3, [300, 600, 100])
    fixed = with_radius(row, row["p_lower"], upper_bound(100, N, RIVAL_SHARE * FAILURE_PROB))
    assert inconsistent_rows(pd.DataFrame([fixed]), TWO_CLASS) == [3]


def test_a_two_class_table_is_none_of_the_one_class_bound():
    rows = pd.DataFrame([row_of(3, [300, 450, 250])])
    assert rows["predict"][0] == 1, "without half of the samples"
    assert inconsistent_rows(rows, TWO_CLASS) == []
    assert inconsistent_rows(rows, ONE_CLASS) == inconsistent_rows(rows, IDENTITY) == [3]


@both_bounds
def test_lost_samples_are_misses_of_the_class_and_hits_of_its_rival(identity):
    honest, ignored = row_of(3, [60, 930, 0], identity), row_of(3, [60, 940, 0], identity)
    assert inconsistent_rows(pd.DataFrame([honest]), identity) == []
    assert inconsistent_rows(pd.DataFrame([ignored | {"counts": "60 930 0"}]), identity) == [3]


@both_bounds
def test_a_row_that_abstained_early_claims_nothing(identity):
    early = row_of(3, [400, 400, 200], identity) | {"n": 500, "counts": "200 200 100", "p_lower": 0.0, "p_upper": 1.0}
    assert inconsistent_rows(pd.DataFrame([early]), identity) == []
    p_lower = lower_bound(480, 500, FAILURE_PROB)
    stopped = early | {"counts": "20 480 0", "predict": 1, "correct": 1, "p_lower": p_lower, "p_upper": 1 - p_lower}
    for change in ({"p_lower": 0.3}, {"p_upper": 0.5}, stopped | {"radius": 0.1}):
        assert inconsistent_rows(pd.DataFrame([early | change]), identity) == [3]


def test_a_table_of_before_follows_from_its_counts_by_the_one_class_bound(random):
    rows = [honest_row(index, around(0.8), random, ONE_CLASS) for index in range(5)]
    old = pd.DataFrame(rows).drop(columns="p_upper")
    assert inconsistent_rows(old, IDENTITY) == []
    assert inconsistent_rows(old.assign(radius=1.1 * old["radius"]), IDENTITY) == [0, 1, 2, 3, 4]
    assert inconsistent_rows(old, TWO_CLASS) == [0, 1, 2, 3, 4], "which states p_upper"


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
    assert "rows are of images that the test split does not have" in other_labels(rows, LABELS)[0]
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
    card = SimpleNamespace(weights_sha256="w", sigma=SIGMA, grid=GRID)
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
        (relabel, "images and labels", "1 rows have another label than the test split (images 3)"),
        (drop, "completeness and order", "without 4, 7"),
        (move, "completeness and order", "moved"),
        (lower_p_upper, "arithmetic", "1 rows claim more than their counts give (images 5)"),
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
    [(("--n", "9"), "at least 11 fresh samples are needed"), (("--images", "1"), "1 rows are too few")],
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
