"""Soundness of the two-class bound: counts are drawn from known probabilities of the classes, often with near ties.

An attempt fails where it certifies another class than the true one, more than its true radius, or states a bound on the
wrong side of what it bounds. The natural mistakes fail too often.
"""

import functools

import numpy as np
import pytest
from scipy import stats
from scipy.special import ndtri

from components.certification import bounds, cohen
from components.certification.bounds import (
    certified_radius,
    complement,
    lower_bound,
    probability_bounds,
    upper_bound,
)
from components.certification.table import ABSTAIN, Certificate
from tests.support.half_spaces import steps
from tests.support.procedures import certify_image

IMAGE, SIGMA, ATTEMPTS, FAILURE_PROB = steps(0.5), 0.5, 20_000, 0.05
PROBABILITIES = {
    "2 classes, a tie": [0.5, 0.5],
    "2 classes": [0.62, 0.38],
    "3 classes, nearly two": [0.6, 0.39, 0.01],
    "3 classes, a tie of the rivals": [0.5, 0.25, 0.25],
    "3 classes, nearly a tie": [0.335, 0.333, 0.332],
    "3 classes, sure": [0.97, 0.02, 0.01],
    "10 classes, nearly a tie": [0.102, *[0.898 / 9] * 9],
    "10 classes, two rivals": [0.45, 0.2, 0.2, *[0.15 / 7] * 7],
    "10 classes, sure": [0.91, *[0.01] * 9],
}


@pytest.fixture(autouse=True)
def cached_bounds(monkeypatch):
    """The same function, each value computed once."""
    monkeypatch.setattr(bounds, "lower_bound", functools.cache(lower_bound))


class Drawn:
    """Counts of known probabilities, `rival` being the class whose samples are lost with probability `lost`."""

    def __init__(self, probabilities, lost=0.0, rival=1):
        self.probabilities, self.lost, self.rival = np.array(probabilities), lost, rival
        self.rng = np.random.default_rng(0)

    def draw(self, num, attempts):
        """(attempts, classes)."""
        counts = self.rng.multinomial(num, self.probabilities, attempts)
        counts[:, self.rival] -= self.rng.binomial(counts[:, self.rival], self.lost)
        return counts

    def refutes(self, certificate):
        """Whether the certificate claims too much; class 0 is the true one."""
        of_class = self.probabilities[certificate.selected]
        of_rival = np.delete(self.probabilities, certificate.selected).max()
        radius = SIGMA / 2 * (ndtri(of_class) - ndtri(of_rival))
        wrong = certificate.predict != ABSTAIN and certificate.radius > radius + 1e-12
        return wrong or certificate.p_lower > of_class or certificate.p_upper < of_rival


class Told:
    """A sampler whose streams give the counts that they are told."""

    sigma = SIGMA

    def __init__(self, *counts):
        self.counts = iter(counts)

    def stream(self, image, *, seed, index):
        return self

    def count(self, num):
        return next(self.counts) if num else 0


def failures(drawn, procedure=certify_image, n=300):
    """How many of the attempts fail. Those whose counts say the same to a procedure are made once."""
    options = {"n0": 20, "n": n, "failure_prob": FAILURE_PROB, "bound": "two_class", "seed": 0, "index": 0}
    first, counts = drawn.draw(20, ATTEMPTS), drawn.draw(n, ATTEMPTS)
    selected, runner_up = np.argsort(-first, axis=1, kind="stable")[:, :2].T
    others = counts.copy()
    np.put_along_axis(others, selected[:, None], -1, axis=1)
    says = [selected, runner_up, counts.argmax(1), counts.sum(1), others.max(1)]
    says += [np.take_along_axis(counts, which[:, None], 1)[:, 0] for which in (selected, runner_up)]
    alike = np.zeros(ATTEMPTS, dtype=np.int64)
    for numbers in says:
        alike = np.unique(alike << 32 | numbers, return_inverse=True)[1]
    _, examples, times = np.unique(alike, return_index=True, return_counts=True)
    made = (procedure(Told(first[i], counts[i]), IMAGE, **options) for i in examples)
    return sum(int(num) * drawn.refutes(certificate) for num, certificate in zip(times, made, strict=True))


def too_many(failed):
    """Whether so many failures refute that each happens with `FAILURE_PROB` at most."""
    return stats.binomtest(int(failed), ATTEMPTS, FAILURE_PROB, alternative="greater").pvalue < 1e-6


@pytest.mark.parametrize("n", [300, pytest.param(1000, marks=pytest.mark.medium)])
@pytest.mark.parametrize("name", PROBABILITIES)
def test_two_class_certificates_fail_no_more_often_than_they_say(name, n):
    assert not too_many(failures(Drawn(PROBABILITIES[name]), n=n))


def test_some_fail_else_this_would_mean_nothing():
    assert failures(Drawn(PROBABILITIES["2 classes"])) > 0.5 * FAILURE_PROB * ATTEMPTS


class DrawnAlive(Told):
    """A sampler that draws when it is asked."""

    def __init__(self, drawn):
        self.drawn = drawn

    def count(self, num):
        return self.drawn.draw(num, 1)[0]


@pytest.mark.parametrize("name", ["2 classes, a tie", "3 classes, nearly a tie"])
def test_with_early_abstention_they_fail_no_more_often(name, monkeypatch):
    monkeypatch.setattr(cohen, "is_behind", functools.cache(cohen.is_behind))
    drawn, options = Drawn(PROBABILITIES[name]), {"n0": 20, "n": 3000, "failure_prob": FAILURE_PROB}
    options |= {"bound": "two_class", "early_abstention": True, "seed": 0, "index": 0}
    made = [certify_image(DrawnAlive(drawn), IMAGE, **options) for _ in range(2000)]
    failed = sum(drawn.refutes(certificate) for certificate in made)
    assert stats.binomtest(failed, 2000, FAILURE_PROB, alternative="greater").pvalue > 1e-6


@pytest.mark.parametrize("name", ["3 classes, a tie of the rivals", "2 classes", "10 classes, two rivals"])
@pytest.mark.parametrize("lost", [0.1, 1.0])
def test_lost_samples_of_the_rival_make_no_certificate_unsound(name, lost):
    assert not too_many(failures(Drawn(PROBABILITIES[name], lost)))


# --- what would be wrong with it ---------------------------------------------------------------------------------


def mistaken(bounds_of, selected_on_its_own=False):
    """The procedure with other bounds: `bounds_of(counts, selected, n, rival)`, `rival` being the runner-up among the
    samples that select."""

    def procedure(sampler, image, *, seed, index, n0, n, failure_prob, bound):
        first, counts = sampler.count(n0), sampler.count(n)
        selected = int((counts if selected_on_its_own else first).argmax())
        rival = int((-first).argsort(kind="stable")[1])
        p_lower, p_upper = bounds_of(counts.tolist(), selected, n, rival)
        evidence = (selected, counts.tolist(), n0, n, p_lower, p_upper)
        if p_lower <= p_upper:
            return Certificate(ABSTAIN, 0.0, *evidence)
        return Certificate(selected, certified_radius(p_lower, SIGMA, p_upper), *evidence)

    return procedure


def honest(counts, selected, n, _):
    return probability_bounds("two_class", counts, selected, n, FAILURE_PROB)


def with_a_fixed_rival(counts, selected, n, rival):
    """The runner-up of the selection, whose share is bounded as if it were that of the true one."""
    p_lower = bounds.lower_bound(counts[selected], n, 0.9 * FAILURE_PROB)
    return p_lower, min(upper_bound(counts[rival], n, 0.1 * FAILURE_PROB), complement(p_lower))


def with_all_of_failure_prob_on_each_side(counts, selected, n, _):
    """The larger of the radii of both bounds, neither of which pays for the other."""
    p_lower = bounds.lower_bound(counts[selected], n, FAILURE_PROB)
    rival = max(count for label, count in enumerate(counts) if label != selected)
    return p_lower, min(upper_bound(rival, n, FAILURE_PROB), complement(p_lower))


def without_the_lost(counts, selected, n, _):
    """Lost samples leave n as well: the rest is taken for all there is."""
    return probability_bounds("two_class", counts, selected, sum(counts), FAILURE_PROB)


def with_lost_ones_that_are_no_hits_of_the_rival(counts, selected, n, _):
    p_lower = bounds.lower_bound(counts[selected], n, 0.9 * FAILURE_PROB)
    rival = max(count for label, count in enumerate(counts) if label != selected)
    return p_lower, min(upper_bound(rival, n, 0.1 * FAILURE_PROB), complement(p_lower))


MISTAKES = {
    "a fixed rival": (with_a_fixed_rival, [0.5, 0.3, 0.2], 0.0, False),
    "all of failure_prob on each side": (with_all_of_failure_prob_on_each_side, [0.4, 0.2, *[0.01] * 40], 0.0, False),
    "selection on the same samples": (honest, [0.335, 0.333, 0.332], 0.0, True),
    "lost samples left out": (without_the_lost, [0.5, 0.45, 0.05], 0.5, False),
    "lost samples no hits": (with_lost_ones_that_are_no_hits_of_the_rival, [0.5, 0.35, 0.15], 0.5, False),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_would_show(name):
    bounds_of, probabilities, lost, selected_on_its_own = MISTAKES[name]
    assert not too_many(failures(Drawn(probabilities, lost), mistaken(honest)))
    assert too_many(failures(Drawn(probabilities, lost), mistaken(bounds_of, selected_on_its_own)))
