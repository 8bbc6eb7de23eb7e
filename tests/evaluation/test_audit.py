"""The audit's arithmetic: honest tables stand, inflated ones do not."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from components.certification.bounds import certified_radius, lower_bound
from components.evaluation.audit import (
    claimed_probability,
    contradictions_needed,
    inconsistent_rows,
    is_contradicted,
)

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
