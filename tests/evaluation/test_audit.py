"""The audit of rows by fresh noise and by their own counts: honest ones stand, whatever the bound; others do not."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from components.certification.bounds import certified_radius, lower_bound, probability_bounds, upper_bound
from components.evaluation.audit import contradicted_claims, contradictions_needed, inconsistent_rows
from components.params import RIVAL_SHARE

SIGMA, FAILURE_PROB, N = 0.5, 0.001, 1000
IDENTITY = {"mode": "reference", "sigma": SIGMA, "failure_prob": FAILURE_PROB, "n": N}
ONE_CLASS, TWO_CLASS = IDENTITY | {"bound": "one_class"}, IDENTITY | {"bound": "two_class"}
both_bounds = pytest.mark.parametrize("identity", [ONE_CLASS, TWO_CLASS], ids=["one_class", "two_class"])


def row_of(index, counts, identity=TWO_CLASS):
    """What the reference procedure writes of an image of class 1, which was selected, with such counts."""
    p_lower, p_upper = probability_bounds(identity["bound"], counts, 1, N, FAILURE_PROB)
    certified = p_lower > p_upper
    return {
        "idx": index,
        "label": 1,
        "predict": 1 if certified else -1,
        "radius": certified_radius(p_lower, SIGMA, p_upper) if certified else 0.0,
        "correct": int(certified),
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
@pytest.mark.parametrize("p", [0.55, *(pytest.param(p, marks=pytest.mark.medium) for p in (0.42, 0.45, 0.9, 0.999))])
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
