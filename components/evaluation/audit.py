"""The audit of a table of certificates: against its images and labels, against its own counts, and on a sample of rows
against fresh noise.

A row that answers class c with p_lower and a radius claims that the probability p of c under the noise is at least
p_claimed = max(p_lower, Phi(radius / sigma)). k hits in n fresh samples contradict the row if k or fewer hits have
probability at most failure_prob under p_claimed.

False alarms: a row of an honest table is wrong with probability at most failure_prob over the noise that made it. A
correct row is contradicted with probability at most failure_prob over the fresh noise. So each image of an honest table
is contradicted with probability at most 2 failure_prob, independently of the others, because each has its own noise:
the number of contradictions is stochastically at most Binomial(images, 2 failure_prob). The images must be drawn from
all rows, including those that abstain: among the certified rows alone, failure_prob does not bound the share of wrong
ones.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtr
from scipy.stats import binom

from components.certification.bounds import DECIMALS, certified_radius, complement, lower_bound, rival_hits
from components.certification.confidence_sequences import anytime_lower_bound
from components.certification.preset_radii import UNMOVED, accepted_radius, anytime_bounds
from components.certification.table import ABSTAIN
from components.tools.wording import counted

TOLERANCE = 1.5 * 10**-DECIMALS
"""Allowed between two computations of one written number: other library versions may floor it differently."""


def unlike_the_images(table: pd.DataFrame, labels: np.ndarray, identity: dict) -> list[str]:
    """The mismatches between a table and its images; empty if each image has its row with the right label.

    A table covers every k-th image of the test split, in order. Its identity names k (`every`) and the number of
    images. An older table's does not; then the distance of its first two image numbers is taken as k.

    Args:
        labels: of all images of the split, int (N,).
    """
    known = table["idx"].isin(range(len(labels)))
    if not known.all():
        alien = counted((~known).sum(), "rows are", "row is")
        return [f"{alien} of images that the test split does not have ({named(table['idx'][~known])})"]
    indices, findings = table["idx"].to_numpy(dtype=np.int64), []
    wrong = table["label"].to_numpy() != labels[indices]
    if wrong.any():
        rows = counted(wrong.sum(), "rows have", "row has")
        findings.append(f"{rows} another label than the test split (images {named(indices[wrong])})")
    every = identity.get("every", max(1, int(np.diff(indices[:2]).sum())) if len(indices) > 1 else len(labels))
    if not isinstance(every, int) or every < 1:
        return [*findings, f"its identity says every = {every!r}"]
    expected = np.arange(0, len(labels), every)
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


def named(indices: Iterable[int], most: int = 5) -> str:
    """The first few image numbers, as text."""
    indices = list(indices)
    return ", ".join(map(str, indices[:most])) + (", ..." if len(indices) > most else "")


def inconsistent_rows(table: pd.DataFrame, identity: dict) -> list[int]:
    """The image numbers of the rows that claim more than their own counts prove.

    Args:
        table: of either procedure, with all its columns.
        identity: what the table is a function of: sigma, failure_prob and, for preset radii, the radii.
    """
    claims: Any = preset_claim if identity["mode"] == "sequential" else reference_claim
    wrong = []
    for row in table.to_dict("records"):
        counts = [int(count) for count in str(row["counts"]).split()]
        p_lower, *_, radius = claims(row, counts, identity)
        answers_selected = row["predict"] in (ABSTAIN, row["selected"])
        if (
            not answers_selected
            or sum(counts) != row["n"]
            or row["correct"] != int(row["predict"] == row["label"])
            or row["p_lower"] > p_lower + TOLERANCE
            or row["radius"] > (radius if row["predict"] != ABSTAIN else 0) + TOLERANCE
        ):
            wrong.append(int(row["idx"]))
    return wrong


def reference_claim(row: dict, counts: Sequence[int], identity: dict) -> tuple[float, float]:
    """p_lower and radius that a row's counts give by Clopper-Pearson."""
    p_lower = lower_bound(counts[row["selected"]], sum(counts), identity["failure_prob"])
    return p_lower, certified_radius(p_lower, identity["sigma"]) if p_lower > 0.5 else 0.0


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
        p_lower, p_upper = anytime_bounds(identity.get("bound", "one_class"), k, rival, t, failure_prob)
        if radius <= accepted_radius(p_lower, p_upper, identity["sigma"]):
            accepted = radius
        if old:
            p_lower = max(p_lower, anytime_lower_bound(k, t, failure_prob, UNMOVED))
            p_upper = complement(p_lower)
        lower, upper = max(lower, p_lower), min(upper, p_upper)
    return lower, upper, accepted


def claimed_probability(predict: int, p_lower: float, radius: float, sigma: float) -> float:
    """The lower bound on p that a row claims; 0 if it abstains, which claims nothing."""
    return 0.0 if predict == ABSTAIN else max(p_lower, float(ndtr(radius / sigma)), 0.5)


def is_contradicted(k: int, n: int, p_claimed: float, failure_prob: float) -> bool:
    """Whether `k` hits in `n` fresh samples are too few for a probability of `p_claimed` or more."""
    return bool(binom.cdf(k, n, p_claimed) <= failure_prob)


def contradictions_needed(images: int, failure_prob: float, false_alarm: float) -> int:
    """The fewest contradictions among the images that an honest table has with probability at most `false_alarm`."""
    needed = np.arange(1, images + 2)
    return int(needed[binom.sf(needed - 1, images, 2 * failure_prob) <= false_alarm][0])
