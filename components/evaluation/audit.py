"""Does a table of certificates stand? Checks of the whole table against its images, its noise and its own counts, and a
trial of a sample of its rows with fresh noise.

A row that answers class A makes two claims about the probabilities of the classes under the noise: p_A >= p_lower, and
p_c <= p_upper for every other class c. Its radius follows from these two numbers, which `inconsistent_rows` checks. A
row that abstains claims nothing. The trial counts the classes of n fresh samples of the image, among K classes. With w,
the share of failure_prob that the two-class bound spends on the rival, they contradict

    the first claim   where so few hits of A, or fewer, have probability at most (1 - w) failure_prob under p_lower,
    the second claim  where so many hits of some other class, or more, have probability at most
                      w failure_prob / (K - 1) under p_upper.

The one-class bound, which all older tables have, states p_upper = 1 - p_lower. Its second claim follows from the first,
so the first alone is tried: at failure_prob, and with Phi(radius / sigma) where that is larger than p_lower.

False alarms, over the noise that made the table and the fresh noise:

1. A row of an honest table makes a false claim with probability at most failure_prob. The first claim is false with
   probability at most (1 - w) failure_prob. The second is about all other classes, yet it is false only where it is
   false of the true runner-up. That is one fixed class, as A comes from other samples, so that the probability is at
   most w failure_prob (see `bounds`).
2. A row whose claims are true is contradicted with probability at most failure_prob. The hits of A are a
   Binomial(n, p_A) variable with p_A >= p_lower: at most (1 - w) failure_prob. The rival of the trial is not fixed
   beforehand: it is whichever class has most hits among the fresh samples. The largest count is the cautious choice for
   a bound from above, but not against one: each of K - 1 classes may have it by chance. Each reaches the count that
   contradicts with probability at most w failure_prob / (K - 1), since p_c <= p_upper, and so any of them does with
   probability at most w failure_prob, however the counts depend on each other.
3. A fresh sample that is lost stands for one whose class is unknown. It counts as a hit of A and of no other class, so
   that it contradicts nothing.

So each image of an honest table is contradicted with probability at most 2 failure_prob, independently of the others,
as each has noise of its own: the number of contradictions is stochastically at most a Binomial(images, 2 failure_prob)
variable. The images must be drawn from all rows, those that abstain too: among the certified rows alone, failure_prob
does not bound the share of wrong ones.

Fresh noise is of the exact arithmetic. The claims of a table of before (`arithmetic: float`) are about floating-point
noise; for it the statement holds as far as a class has the same probability under both.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pandas as pd
from scipy.special import ndtr
from scipy.stats import binom

from components.certification.bounds import DECIMALS, certified_radius, complement, probability_bounds, rival_hits
from components.certification.confidence_sequences import anytime_lower_bound
from components.certification.noise.discrete_normal import discrete_normal
from components.certification.preset_radii import UNMOVED, accepted_radius, anytime_bounds
from components.certification.table import ABSTAIN
from components.evaluation.rebound import arithmetic_of, bound_of, counts_of
from components.model.card import ModelCard
from components.params import RIVAL_SHARE
from components.tools.wording import counted

TOLERANCE = 1.5 * 10**-DECIMALS
"""Between two computations of one written number: other versions of the libraries may floor it differently."""
SAMPLES_PER_LOST = 100_000
"""A table that lost more than one sample in so many was not made by our noise, which loses fewer than one in 10**9."""


def table_checks(
    table: pd.DataFrame, identity: dict, labels: np.ndarray, card: ModelCard, content: str | None
) -> Iterator[tuple[str, str, list[str]]]:
    """The checks of the whole table: the kind of each, what it compared, and what it found.

    Args:
        table: its `attrs["content"]` is the hash of its file and its weights.
        labels: of all images of the test split, int (N,).
        content: the same hash, as the version was registered with it.
    """
    found = [] if table.attrs["content"] == content else ["table.tsv is not the file registered with these weights"]
    facts = card.content | {"sigma": card.sigma}
    found += [f"its identity says another {name}" for name in facts if identity.get(name) != facts[name]]
    yield "files", "table and identity against the registered version", found

    yield "images and labels", f"{len(table)} rows against {len(labels)} test images", other_labels(table, labels)

    what = "a row for every k-th image, k taken from the rows of an older table, whose identity does not say it"
    if "every" in identity:
        what = f"a row for test image 0, and from there for every k-th, k = {identity['every']}"
    yield "completeness and order", what, missing_or_moved(table, len(labels), identity)

    by = f"by the {bound_of(identity)} bound" + (" at every look" if identity["mode"] == "sequential" else "")
    wrong = inconsistent_rows(table, identity)
    rows = counted(len(wrong), "rows claim more than their", "row claims more than its")
    found = [f"{rows} counts give (images {named(wrong)})"] if wrong else []
    yield "arithmetic", f"{len(table)} rows computed anew from their counts {by}", found

    what = f"grid, thresholds at sigma {card.sigma:g} on the model's grid of {card.grid} steps, and lost samples"
    if arithmetic_of(identity) == "float":
        what = "lost samples alone, as an older table's noise was drawn in floating point"
    yield "noise distribution", what, other_noise(table, identity, card.sigma, card.grid)


def other_labels(table: pd.DataFrame, labels: np.ndarray) -> list[str]:
    """The rows that are of no image of the test split, or have another label than their image.

    Args:
        labels: of all images of the split, int (N,).
    """
    known = table["idx"].isin(range(len(labels)))
    if not known.all():
        alien = counted((~known).sum(), "rows are", "row is")
        return [f"{alien} of images that the test split does not have ({named(table['idx'][~known])})"]
    indices = table["idx"].to_numpy(dtype=np.int64)
    wrong = table["label"].to_numpy() != labels[indices]
    if not wrong.any():
        return []
    rows = counted(wrong.sum(), "rows have", "row has")
    return [f"{rows} another label than the test split (images {named(indices[wrong])})"]


def missing_or_moved(table: pd.DataFrame, images: int, identity: dict) -> list[str]:
    """How a table's rows differ from those of every k-th image of the test split, in their order.

    Its identity names k (`every`) and the number of rows; an older table's does not, and its second row's number is
    taken for k.

    Args:
        images: in the test split.
    """
    indices, findings = table["idx"].to_numpy(), []
    every = identity.get("every", max(1, int(np.diff(indices[:2]).sum())) if len(indices) > 1 else images)
    if not isinstance(every, int) or every < 1:
        return [f"its identity says every = {every!r}"]
    expected = np.arange(0, images, every)
    if identity.get("images", len(expected)) != len(expected):
        says = counted(identity["images"], "images")
        findings.append(f"its identity says {says}, where every = {every} gives {len(expected)}")
    if not np.array_equal(indices, expected):
        missing, more = np.setdiff1d(expected, indices), np.setdiff1d(indices, expected)
        what = [f"without {named(missing)}"] if len(missing) else []
        what += [f"with {named(more)}"] if len(more) else []
        findings.append(
            f"its rows are not those of images 0, {every}, {2 * every}, ...: {' and '.join(what) or 'moved'}"
        )
    return findings


def other_noise(table: pd.DataFrame, identity: dict, sigma: float, grid: int) -> list[str]:
    """What a table says of its noise that does not fit the model's: its grid, the thresholds of its noise, and how many
    samples it lost.

    Args:
        sigma, grid: of the model card.
    """
    arithmetic, findings = arithmetic_of(identity), []
    if arithmetic not in ("exact", "float"):
        findings.append(f"its identity says arithmetic {arithmetic!r}")
    if arithmetic == "exact":
        due = {"grid": grid, "thresholds_sha256": discrete_normal(sigma, grid).sha256}
        findings += [
            f"its identity says {name} {identity.get(name)!r}, and sigma and grid of the model give {value!r}"
            for name, value in due.items()
            if identity.get(name) != value
        ]
    samples = int(table["n"].sum())
    lost = samples - sum(sum(counts_of(row)) for row in table.to_dict("records"))
    if lost > (samples / SAMPLES_PER_LOST if arithmetic == "exact" else 0):
        findings.append(f"{lost} of {samples} samples fell to no class: the noise loses hardly any")
    return findings


def named(indices: Iterable[int], most: int = 5) -> str:
    """The first few image numbers, as text."""
    indices = list(indices)
    return ", ".join(map(str, indices[:most])) + (", ..." if len(indices) > most else "")


def inconsistent_rows(table: pd.DataFrame, identity: dict) -> list[int]:
    """The image numbers of the rows that claim more than their own counts prove.

    Args:
        table: of either procedure, with all its columns; p_upper may be missing where the one-class bound implies it.
        identity: what the table is a function of: mode, sigma, n, failure_prob, its bound, and the preset radii if any.
    """
    return [int(row["idx"]) for row in table.to_dict("records") if claims_too_much(row, identity)]


def claims_too_much(row: dict, identity: dict) -> bool:
    """Whether a row's answer, bounds or radius are more than follows from its counts; less is sound."""
    counts, selected = counts_of(row), row["selected"]
    if not 0 <= selected < len(counts) or min(counts) < 0 or sum(counts) > row["n"]:
        return True
    claim = preset_claim if identity["mode"] == "sequential" else reference_claim
    p_lower, p_upper, radius = claim(row, counts, identity)
    return bool(
        row["predict"] not in (ABSTAIN, selected)
        or row["correct"] != int(row["predict"] == row["label"])
        or row["p_lower"] > p_lower + TOLERANCE
        or stated_upper(row, identity) < p_upper - TOLERANCE
        or row["radius"] > (radius if row["predict"] != ABSTAIN else 0) + TOLERANCE
    )


def stated_upper(row: dict, identity: dict) -> float:
    """A row's p_upper. A table of before lacks it, and has the one-class bound."""
    return float(row.get("p_upper", complement(row["p_lower"]) if bound_of(identity) == "one_class" else 1.0))


def reference_claim(row: dict, counts: Sequence[int], identity: dict) -> tuple[float, float, float]:
    """p_lower and p_upper that a row's counts give by the table's own bound, and the radius that its stated p_lower and
    p_upper give. A row with fewer samples than the others abstained early, and gives nothing."""
    if row["n"] != identity["n"]:
        return 0.0, 1.0, 0.0
    bounds = probability_bounds(bound_of(identity), counts, row["selected"], row["n"], identity["failure_prob"])
    lower, upper = row["p_lower"], stated_upper(row, identity)
    return *bounds, certified_radius(lower, identity["sigma"], upper) if 0 < upper < lower < 1 else 0.0


def preset_claim(row: dict, counts: Sequence[int], identity: dict) -> tuple[float, float, float]:
    """p_lower, p_upper and the largest accepted radius that a row's looks give; nothing where a look has more than its
    counts.

    Tables of before the two-class bound have looks without the rival's hits, and their prior had half of its mass below
    1/2: the radii that it accepts are those of the one-class bound too, but its p_lower is larger where it is small.
    """
    looks = [tuple(map(int, look.split("/"))) for look in str(row["looks"]).split()]
    old, hits, n = "bound" not in identity, counts[row["selected"]], int(row["n"])
    if old:
        looks = [(k, t - k, t) for k, t in looks]
    others = n if old else rival_hits(counts, row["selected"], n)
    possible = (k <= hits and rival <= others and k + rival <= t <= n for k, rival, t in looks)
    if len(looks) != len(identity["radii"]) or not all(possible):
        return 0.0, 1.0, 0.0
    failure_prob, accepted, lower, upper = identity["failure_prob"], 0.0, 0.0, 1.0
    for radius, (k, rival, t) in zip(identity["radii"], looks, strict=True):
        p_lower, p_upper = anytime_bounds(bound_of(identity), k, rival, t, failure_prob)
        if radius <= accepted_radius(p_lower, p_upper, identity["sigma"]):
            accepted = radius
        if old:
            p_lower = max(p_lower, anytime_lower_bound(k, t, failure_prob, UNMOVED))
            p_upper = complement(p_lower)
        lower, upper = max(lower, p_lower), min(upper, p_upper)
    return lower, upper, accepted


def contradicted_claims(row: dict, hits: np.ndarray, n: int, identity: dict) -> list[str]:
    """What `n` fresh samples say against a row: the claims that they contradict, for people.

    Args:
        row: of a table with this identity.
        hits: of each class, int (K,); what they lack of n is lost.
    """
    answer = row["predict"]
    if answer == ABSTAIN:
        return []
    if not 0 <= answer < len(hits):
        return [f"class {answer} is none of the model's {len(hits)}"]
    at_least, failure_prob, found = row["p_lower"], identity["failure_prob"], []
    two_class = bound_of(identity) == "two_class"
    if not two_class:
        at_least = max(at_least, float(ndtr(row["radius"] / identity["sigma"])), 0.5)
    own = int(hits[answer] + n - hits.sum())
    if binom.cdf(own, n, at_least) <= (1 - RIVAL_SHARE if two_class else 1) * failure_prob:
        found.append(f"class {answer} needs at least {at_least:.4f} of the samples, has {own} of {n}")
    others = np.delete(hits, answer)
    if two_class and len(others):
        at_most, most = stated_upper(row, identity), int(others.max())
        if binom.sf(most - 1, n, at_most) <= RIVAL_SHARE * failure_prob / len(others):
            found.append(f"no other class than {answer} may have more than {at_most:.4f}, one has {most} of {n}")
    return found


def contradictions_needed(images: int, failure_prob: float, false_alarm: float) -> int:
    """The fewest contradictions among the images that an honest table has with probability at most `false_alarm`."""
    needed = np.arange(1, images + 2)
    return int(needed[binom.sf(needed - 1, images, 2 * failure_prob) <= false_alarm][0])
