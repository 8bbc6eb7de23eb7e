"""Preset radii of one image with as few samples as they need: look at growing sizes, stop once all are decided.

A look has the hits k of the selected class A and the hits of its rival: of whichever other class has most, and all
lost samples (see `bounds`). Its bounds p_lower <= p_A and p_upper >= the probability of every other class accept the
radii up to sigma / 2 * (Phi^-1(p_lower) - Phi^-1(p_upper)).

All radii and all looks share one failure_prob: with probability >= 1 - failure_prob none is ever wrongly accepted. For
the bounds are confidence sequences (see `confidence_sequences`), which hold at all looks together:

one_class: p_lower at failure_prob, p_upper = 1 - p_lower. Its prior lies above 1/2, as does p_A wherever it certifies.
two_class: p_lower at (1 - w) failure_prob, and p_upper at w failure_prob from the rival's hits, or 1 - p_lower where
    that is less. No correction over the classes is needed: the true runner-up is one fixed class, its hits are at no
    look more than the rival's, and the bound grows with the hits.

A rejection says, wrongly with probability <= reject_prob over all radii and looks, that no number of samples would give
the radius: that it exceeds the above of the true probabilities, with lost samples counted as here. It takes an upper
bound on p_A and a lower one on the rival. one_class: 1 less the former. two_class: each at reject_prob / 2, the rival's
divided by the number of other classes, as the one that has most was seen to have most; and at least the mean of what A
leaves to the others.

At any look the bounds of rejections enclose those of acceptances. So a look accepts all radii up to some size and
rejects all from some size on, and answers never contradict each other; and sampling may stop and go on for any reason.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Literal, cast

import numpy as np
from scipy.special import ndtri

from components.certification import table
from components.certification.bounds import DECIMALS, certified_radius, complement, rival_hits
from components.certification.confidence_sequences import anytime_lower_bound, anytime_upper_bound
from components.certification.table import ABSTAIN, Counting
from components.params import RIVAL_SHARE, Bound

FIRST_LOOK = 50
"""Samples before the first look."""
LOOK = 1000
"""Samples between two looks in the end."""
TRUNCATED, MOSTLY, UNMOVED = 1.0, 0.75, 0.5
"""Shares of a prior on the side of 1/2 where its probability is expected: for what lies there wherever a radius is
certified; for p_A where the two-class bound certifies it below 1/2 too; for what may lie on either side."""

Decision = Literal["accept", "reject", "undecided"]


@dataclass(frozen=True)
class Answer:
    """What `k` hits and `rival` hits of the rival in `t` samples, at the look that decided or else at the last one, say
    about one radius."""

    radius: float
    decision: Decision
    k: int
    rival: int
    t: int


@dataclass(frozen=True)
class RadiiCertificate:
    """With probability >= 1 - failure_prob over the sampling, the smoothed classifier answers `selected` on the balls
    of all accepted radii, and at the image with a probability above `p_lower` and every other class with one below
    `p_upper`. Holds all that a top-up needs."""

    selected: int
    """The class chosen on the first n0 samples."""
    answers: list[Answer]
    """One per radius, increasing."""
    counts: list[int]
    """Of the n samples from n0 on that were not lost, how many fell to each class; the next sample is n0 + n."""
    n0: int
    n: int
    p_lower: float
    p_upper: float

    @property
    def predict(self) -> int:
        return self.selected if any(answer.decision == "accept" for answer in self.answers) else ABSTAIN

    @property
    def radius(self) -> float:
        """The largest accepted radius, or 0."""
        return max((answer.radius for answer in self.answers if answer.decision == "accept"), default=0.0)


COLUMNS = [*table.COLUMNS, "decisions", "looks"]
"""Of a table of preset radii. `radius` is the largest accepted one; `decisions` and `looks` (hits/rival's hits/samples
at the look that decided, or else at the last one) stand in the order of the radii."""


def format_row(index: int, label: int, certificate: RadiiCertificate) -> str:
    """One line of a table of preset radii: the columns of every table, and the two that a top-up needs."""
    return table.format_row(index, label, certificate).rstrip("\n") + "\t" + "\t".join(own_columns(certificate)) + "\n"


def own_columns(certificate: RadiiCertificate) -> tuple[str, str]:
    """The columns `decisions` and `looks`."""
    decisions = " ".join(answer.decision for answer in certificate.answers)
    return decisions, " ".join(f"{answer.k}/{answer.rival}/{answer.t}" for answer in certificate.answers)


def parse_row(line: str, radii: Sequence[float]) -> RadiiCertificate:
    """The certificate that `format_row` wrote for these radii."""
    values = table.values_of(line, COLUMNS)
    decisions, looks = values["decisions"].split(" "), values["looks"].split(" ")
    answers = [
        Answer(radius, cast(Decision, decision), *map(int, look.split("/")))
        for radius, decision, look in zip(radii, decisions, looks, strict=True)
    ]
    counts = [int(count) for count in values["counts"].split(" ")]
    n0, n, bounds = int(values["n0"]), int(values["n"]), (float(values["p_lower"]), float(values["p_upper"]))
    return RadiiCertificate(int(values["selected"]), answers, counts, n0, n, *bounds)


def deciding(
    sigma: float,
    radii: Sequence[float],
    *,
    n0: int,
    max_n: int,
    failure_prob: float,
    bound: Bound,
    reject_prob: float = 1e-4,
    index: int,
    earlier: RadiiCertificate | None = None,
) -> Counting[RadiiCertificate]:
    """Choose a class on the first `n0` samples, decide the radii on `max_n` more at most.

    Args:
        radii: increasing; 0 asks for the class at the image itself.
        max_n: a look (see `next_look`), so that a top-up sees the same looks as one long run.
        index: the image's number, for messages.
        earlier: what a smaller max_n gave, with all else equal. The samples must then go on after its own (n0 + its n
            of them), and the result is that of an uninterrupted run.

    Raises:
        ValueError: bad radii, max_n or probabilities; a radius that max_n samples cannot certify even if all hit; an
            `earlier` of other radii, n0 or settings.
    """
    check(radii, max_n, sigma, bound, failure_prob, reject_prob)
    settings = partial(look_at, sigma=sigma, bound=bound, failure_prob=failure_prob, reject_prob=reject_prob)
    if earlier is None:
        selected, t, counts = int((yield n0).argmax()), 0, (yield 0)
        answers = unanswered(radii)
    else:
        selected, t, counts, answers = earlier.selected, earlier.n, np.array(earlier.counts), earlier.answers
    look = partial(settings, num_classes=len(counts))
    if earlier is not None:
        redone = [look(unanswered([a.radius]), a.k, a.rival, a.t)[0] for a in answers]
        if [a.radius for a in answers] != list(radii) or redone != answers or earlier.n0 != n0:
            raise ValueError(f"image {index}: the earlier certificate has other radii, n0 or settings: start afresh")

    while t < max_n and any(answer.decision == "undecided" for answer in answers):
        stop = next_look(t)
        counts = counts + (yield stop - t)
        t = stop
        answers = look(answers, int(counts[selected]), rival_hits(counts.tolist(), selected, t), t)
    return certificate_of(selected, answers, counts.tolist(), n0, t, bound=bound, failure_prob=failure_prob)


def unanswered(radii: Sequence[float]) -> list[Answer]:
    return [Answer(float(radius), "undecided", 0, 0, 0) for radius in radii]


def certificate_of(
    selected: int, answers: list[Answer], counts: list[int], n0: int, n: int, *, bound: Bound, failure_prob: float
) -> RadiiCertificate:
    """The answers with the bounds that their looks give: sound at every look, so the best of them all."""
    looks = {(answer.k, answer.rival, answer.t) for answer in answers}
    lower, upper = zip(*(anytime_bounds(bound, *look, failure_prob) for look in looks), strict=True)
    return RadiiCertificate(selected, answers, counts, n0, n, max(lower), min(upper))


def decided_by_counts(
    counts: list[int],
    selected: int,
    n: int,
    radii: Sequence[float],
    *,
    n0: int,
    sigma: float,
    bound: Bound,
    failure_prob: float,
    reject_prob: float,
) -> RadiiCertificate:
    """What the counts of any run's last look say under a bound, whichever it ran under: sound, as every look is; but it
    may leave open what a run under this bound would have decided at an earlier look."""
    rival, settings = rival_hits(counts, selected, n), {"bound": bound, "failure_prob": failure_prob}
    shared: Any = settings | {"sigma": sigma, "reject_prob": reject_prob, "num_classes": len(counts)}
    answers = look_at(unanswered(radii), counts[selected], rival, n, **shared)
    return certificate_of(selected, answers, counts, n0, n, bound=bound, failure_prob=failure_prob)


def look_at(
    answers: list[Answer],
    k: int,
    rival: int,
    t: int,
    *,
    sigma: float,
    bound: Bound,
    failure_prob: float,
    reject_prob: float,
    num_classes: int,
) -> list[Answer]:
    """The answers after a look at `k` hits and `rival` hits of the rival in `t` samples: what was decided stays."""
    accepted = accepted_radius(*anytime_bounds(bound, k, rival, t, failure_prob), sigma)
    rejected = rejected_radius(*limits(bound, k, rival, t, reject_prob, num_classes), sigma)

    def decided(answer: Answer) -> Answer:
        if answer.decision != "undecided":
            return answer
        accept, reject = answer.radius <= accepted, answer.radius > rejected
        return Answer(answer.radius, "accept" if accept else "reject" if reject else "undecided", k, rival, t)

    return [decided(answer) for answer in answers]


def anytime_bounds(bound: Bound, k: int, rival: int, t: int, failure_prob: float) -> tuple[float, float]:
    """p_lower and p_upper: both hold at all looks together, with probability >= 1 - failure_prob."""
    if bound == "one_class":
        p_lower = anytime_lower_bound(k, t, failure_prob, above=TRUNCATED)
        return p_lower, complement(p_lower)
    p_lower = anytime_lower_bound(k, t, (1 - RIVAL_SHARE) * failure_prob, above=MOSTLY)
    p_upper = anytime_upper_bound(rival, t, RIVAL_SHARE * failure_prob, below=TRUNCATED)
    return p_lower, min(p_upper, complement(p_lower))


def limits(bound: Bound, k: int, rival: int, t: int, reject_prob: float, num_classes: int) -> tuple[float, float]:
    """What p_lower and p_upper can come to: at most and at least, at all looks, with probability >= 1 - reject_prob."""
    if bound == "one_class":
        most = anytime_upper_bound(k, t, reject_prob, below=UNMOVED)
        return most, complement(most)
    others = max(num_classes - 1, 1)
    most = anytime_upper_bound(k, t, reject_prob / 2, below=UNMOVED)
    least = anytime_lower_bound(rival, t, reject_prob / 2 / others, above=UNMOVED)
    return most, max(least, complement(most) / others)


def accepted_radius(p_lower: float, p_upper: float, sigma: float) -> float:
    """The largest radius that the bounds prove; negative where they do not prove 0."""
    return certified_radius(p_lower, sigma, p_upper) if p_lower > p_upper else -1.0


def rejected_radius(most: float, least: float, sigma: float) -> float:
    """The radius that the limits leave, rounded up: larger ones are out of reach."""
    return sigma / 2 * float(ndtri(most) - ndtri(least)) + 10**-DECIMALS


def next_look(t: int) -> int:
    """The looks: FIRST_LOOK, then doubled up to LOOK, then every multiple of LOOK."""
    return max(FIRST_LOOK, min(2 * t, (t // LOOK + 1) * LOOK))


def last_look(n: int) -> int:
    """The largest look that is not above `n`; 0 where there is none."""
    look = 0
    while next_look(look) <= min(n, LOOK):
        look = next_look(look)
    return max(look, n // LOOK * LOOK)


def largest_preset_radius(max_n: int, failure_prob: float, sigma: float, bound: Bound) -> float:
    """The radius that is just accepted when all `max_n` samples hit.

    Raises:
        ValueError: not even radius 0 is.
    """
    largest = accepted_radius(*anytime_bounds(bound, max_n, 0, max_n, failure_prob), sigma)
    if largest < 0:
        raise ValueError(f"max_n = {max_n} samples cannot certify anything at failure_prob {failure_prob:g}: take more")
    return largest


def certifiable(radii: Sequence[float], max_n: int, failure_prob: float, sigma: float, bound: Bound) -> list[float]:
    """Those of the radii that `max_n` samples can certify at all."""
    largest = largest_preset_radius(max_n, failure_prob, sigma, bound)
    return [radius for radius in radii if radius <= largest]


def check(
    radii: Sequence[float], max_n: int, sigma: float, bound: Bound, failure_prob: float, reject_prob: float
) -> None:
    """Refuse, by name, what `deciding` cannot answer."""
    for name, prob in (("failure_prob", failure_prob), ("reject_prob", reject_prob)):
        if not 0 < prob < 0.5:
            raise ValueError(f"{name} is {prob!r}: must be > 0 and < 0.5")
    check_size(max_n)
    if not radii or not radii[0] >= 0 or not all(low < high for low, high in pairwise(radii)):
        raise ValueError(f"radii are {list(radii)!r}: must be increasing, not negative and not empty")
    largest = largest_preset_radius(max_n, failure_prob, sigma, bound)
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
