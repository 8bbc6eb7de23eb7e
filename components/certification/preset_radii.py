"""Preset radii of one image with as few samples as they need: look at growing sizes, stop once all are decided.

For a radius r0 the question is whether the class's probability p under the noise exceeds p0 = Phi(r0 / sigma). After k
hits in t samples, the evidence against a probability q is

    E(q) = log B(k + 1/2, t - k + 1/2) - log B(1/2, 1/2) - k log q - (t - k) log(1 - q).

All radii and all looks share one failure_prob: with probability >= 1 - failure_prob none is ever wrongly accepted.
Proof: exp E(p) at the true p is a non-negative martingale that starts at 1 (the likelihood ratio of the Beta(1/2, 1/2)
mixture to the truth), so that by Ville's inequality E(p) ever reaches log(1/failure_prob) with probability failure_prob
at most. A wrong acceptance needs p <= p0 < k/t, and there E falls (its derivative is (t q - k) / (q (1 - q))), so that
E(p) >= E(p0) >= log(1/failure_prob): every wrong acceptance, of any radius at any look, lies in that one event, and so
does every p_lower >= p. No union bound is spent; without the condition p0 < k/t this would fail. Rejections mirror it:
none is ever wrong with probability >= 1 - reject_prob.

For the same reason a look accepts all radii up to some size and rejects all from some size on, so that answers never
contradict each other; and sampling may stop and go on for any reason.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Literal, cast

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betaln, log_ndtr, ndtr

from components.certification import table
from components.certification.bounds import DECIMALS, certified_radius, complement, round_down
from components.certification.sampling import Counting
from components.certification.table import ABSTAIN

FIRST_LOOK = 50
"""Samples before the first look."""
LOOK = 1000
"""Samples between two looks in the end."""
ROUNDING = 1e-6
"""Evidence demanded beyond the threshold: more than the error of computing it, for up to 1e7 samples, and than what a
radius gains when its decimals become the nearest binary number."""

Decision = Literal["accept", "reject", "undecided"]


@dataclass(frozen=True)
class Answer:
    """What `k` hits in `t` samples, at the look that decided or else at the last one, say about one radius."""

    radius: float
    decision: Decision
    k: int
    t: int


@dataclass(frozen=True)
class RadiiCertificate:
    """With probability >= 1 - failure_prob over the sampling, the smoothed classifier answers `selected` on the balls
    of all accepted radii, and at the image with a probability above `p_lower`. Holds all that a top-up needs."""

    selected: int
    """The class chosen on the first n0 samples."""
    answers: list[Answer]
    """One per radius, increasing."""
    counts: list[int]
    """Of the n samples from n0 on that were not lost, how many fell to each class; the next sample is n0 + n."""
    n0: int
    n: int
    p_lower: float

    @property
    def p_upper(self) -> float:
        return complement(self.p_lower)

    @property
    def predict(self) -> int:
        return self.selected if any(answer.decision == "accept" for answer in self.answers) else ABSTAIN

    @property
    def radius(self) -> float:
        """The largest accepted radius, or 0."""
        return max((answer.radius for answer in self.answers if answer.decision == "accept"), default=0.0)


COLUMNS = [*table.COLUMNS, "decisions", "looks"]
"""Of a table of preset radii. `radius` is the largest accepted one; `decisions` and `looks` (hits/samples at the look
that decided, or else at the last one) stand in the order of the radii."""


def format_row(index: int, label: int, certificate: RadiiCertificate) -> str:
    """One line of a table of preset radii: the columns of every table, and the two that a top-up needs."""
    decisions = " ".join(answer.decision for answer in certificate.answers)
    looks = " ".join(f"{answer.k}/{answer.t}" for answer in certificate.answers)
    return table.format_row(index, label, certificate).rstrip("\n") + f"\t{decisions}\t{looks}\n"


def parse_row(line: str, radii: Sequence[float]) -> RadiiCertificate:
    """The certificate that `format_row` wrote for these radii."""
    values = table.values_of(line, COLUMNS)
    decisions, looks = values["decisions"].split(" "), values["looks"].split(" ")
    answers = [
        Answer(radius, cast(Decision, decision), *map(int, look.split("/")))
        for radius, decision, look in zip(radii, decisions, looks, strict=True)
    ]
    counts = [int(count) for count in values["counts"].split(" ")]
    n0, n = int(values["n0"]), int(values["n"])
    return RadiiCertificate(int(values["selected"]), answers, counts, n0, n, float(values["p_lower"]))


def deciding(
    sigma: float,
    radii: Sequence[float],
    *,
    n0: int,
    max_n: int,
    failure_prob: float,
    reject_prob: float = 1e-4,
    index: int,
    earlier: RadiiCertificate | None = None,
) -> Counting[RadiiCertificate]:
    """Choose a class on the first `n0` samples, decide the radii on `max_n` more at most.

    Args:
        radii: increasing; 0 asks for p > 1/2 at the image itself.
        max_n: a look (see `next_look`), so that a top-up sees the same looks as one long run.
        index: the image's number, for messages.
        earlier: what a smaller max_n gave, with all else equal. The samples must then go on after its own (n0 + its n
            of them), and the result is that of an uninterrupted run.

    Raises:
        ValueError: bad radii, max_n or probabilities; a radius that max_n samples cannot certify even if all hit; an
            `earlier` of other radii, n0 or settings.
    """
    check(radii, max_n, sigma, failure_prob, reject_prob)
    look = partial(look_at, sigma=sigma, failure_prob=failure_prob, reject_prob=reject_prob)
    if earlier is None:
        selected, t, counts = int((yield n0).argmax()), 0, (yield 0)
        answers = [Answer(float(radius), "undecided", 0, 0) for radius in radii]
    else:
        selected, t, counts, answers = earlier.selected, earlier.n, np.array(earlier.counts), earlier.answers
        redone = [look(Answer(a.radius, "undecided", 0, 0), a.k, a.t) for a in answers]
        if [a.radius for a in answers] != list(radii) or redone != answers or earlier.n0 != n0:
            raise ValueError(f"image {index}: the earlier certificate has other radii, n0 or settings: start afresh")

    while t < max_n and any(answer.decision == "undecided" for answer in answers):
        stop = next_look(t)
        counts = counts + (yield stop - t)
        t = stop
        answers = [look(answer, int(counts[selected]), t) for answer in answers]
    # Sound at every look: also at those that accepted, whose bound is not below the accepted radii's p0.
    p_lower = max(anytime_lower_bound(k, t, failure_prob) for k, t in {(answer.k, answer.t) for answer in answers})
    return RadiiCertificate(selected, answers, counts.tolist(), n0, t, p_lower)


def look_at(answer: Answer, k: int, t: int, *, sigma: float, failure_prob: float, reject_prob: float) -> Answer:
    """The answer after a look at `k` hits in `t` samples: what was decided stays."""
    if answer.decision != "undecided":
        return answer
    decision = decide(k, t, answer.radius / sigma, failure_prob, reject_prob).item()
    return Answer(answer.radius, decision, k, t)


def next_look(t: int) -> int:
    """The looks: FIRST_LOOK, then doubled up to LOOK, then every multiple of LOOK."""
    return max(FIRST_LOOK, min(2 * t, (t // LOOK + 1) * LOOK))


def last_look(n: int) -> int:
    """The largest look that is not above `n`; 0 where there is none."""
    look = 0
    while next_look(look) <= min(n, LOOK):
        look = next_look(look)
    return max(look, n // LOOK * LOOK)


def log_mixture(k: ArrayLike, t: ArrayLike) -> np.ndarray:
    """log of the mixture's likelihood of one sequence with `k` hits in `t` samples."""
    return betaln(np.add(k, 0.5), np.subtract(t, k) + 0.5) - betaln(0.5, 0.5)


def decide(k: ArrayLike, t: ArrayLike, z: ArrayLike, failure_prob: float, reject_prob: float) -> np.ndarray:
    """At one look, is the probability surely above or below p0 = Phi(z), z = r0 / sigma? For arrays that broadcast."""
    k, t, z = np.asarray(k), np.asarray(t), np.asarray(z)
    evidence = log_mixture(k, t) - k * log_ndtr(z) - (t - k) * log_ndtr(-z)
    accept = (evidence >= ROUNDING - math.log(failure_prob)) & (k / t > ndtr(z))
    reject = (evidence >= ROUNDING - math.log(reject_prob)) & (k / t < ndtr(z))
    return np.where(accept, "accept", np.where(reject, "reject", "undecided"))


def anytime_lower_bound(k: int, t: int, failure_prob: float) -> float:
    """The largest p0 that `k` hits in `t` samples accept, rounded down: below p at all looks together."""
    needed = ROUNDING - math.log(failure_prob) - float(log_mixture(k, t))
    low, high = 0.0, k / t  # low is accepted, high is not, and the evidence falls between them
    for _ in range(60 if k else 0):
        middle = (low + high) / 2
        if -k * math.log(middle) - (t - k) * math.log1p(-middle) >= needed:
            low = middle
        else:
            high = middle
    return round_down(low)


def largest_preset_radius(max_n: int, failure_prob: float, sigma: float) -> float:
    """The radius that is just accepted when all `max_n` samples hit.

    Raises:
        ValueError: not even radius 0 is.
    """
    p_lower = anytime_lower_bound(max_n, max_n, failure_prob)
    if p_lower <= 0.5:
        raise ValueError(f"max_n = {max_n} samples cannot certify anything at failure_prob {failure_prob:g}: take more")
    return certified_radius(p_lower, sigma)


def certifiable(radii: Sequence[float], max_n: int, failure_prob: float, sigma: float) -> list[float]:
    """Those of the radii that `max_n` samples can certify at all."""
    largest = largest_preset_radius(max_n, failure_prob, sigma)
    return [radius for radius in radii if radius <= largest]


def check(radii: Sequence[float], max_n: int, sigma: float, failure_prob: float, reject_prob: float) -> None:
    """Refuse, by name, what `deciding` cannot answer."""
    for name, prob in (("failure_prob", failure_prob), ("reject_prob", reject_prob)):
        if not 0 < prob < 0.5:
            raise ValueError(f"{name} is {prob!r}: must be > 0 and < 0.5")
    check_size(max_n)
    if not radii or not radii[0] >= 0 or not all(low < high for low, high in pairwise(radii)):
        raise ValueError(f"radii are {list(radii)!r}: must be increasing, not negative and not empty")
    largest = largest_preset_radius(max_n, failure_prob, sigma)
    for radius in radii:
        if radius > largest:
            raise ValueError(
                f"radius {radius!r} cannot be certified by max_n = {max_n} samples at failure_prob {failure_prob:g} "
                f"and sigma {sigma:g}: at most {largest:.{DECIMALS}f}"
            )
        if round(radius, DECIMALS) != radius:
            raise ValueError(f"radius {radius!r} has more than the {DECIMALS} decimals that tables hold")


def check_size(max_n: int) -> None:
    """Raises ValueError when `max_n` is not the size of a look."""
    look = FIRST_LOOK
    while look < max_n:
        look = next_look(look)
    if look != max_n:
        raise ValueError(f"n is {max_n}: the sequential procedure stops at looks only, the next one is at {look}")
