"""Metrics of one table of certificates. Reads rows, computes nothing else."""

from typing import Any

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from components.certification.bounds import largest_radius
from components.certification.table import ABSTAIN
from components.evaluation.rebound import arithmetic_of, bound_of, rebound
from components.params import Bound

CONFIDENCE = 0.95
"""Confidence level of the intervals on certified accuracy."""
BOUNDS: tuple[Bound, ...] = ("one_class", "two_class")
P_LOWER_POINTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999)
"""Where a summary gives the empirical distribution of p_lower."""
CURVE_POINTS = 200
"""The points of a drawn curve."""


def certified_radii(table: pd.DataFrame) -> np.ndarray:
    """Per image the radius within which the right class is certified; 0 where the answer is wrong or withheld."""
    return (table["radius"] * is_correct(table)).to_numpy(dtype=float)


def is_correct(table: pd.DataFrame) -> pd.Series:
    return table["predict"] == table["label"]


def is_certified(table: pd.DataFrame, radius: float) -> np.ndarray:
    """Per image whether the right class is certified at `radius`; at 0, whether the smoothed classifier is right."""
    return (is_correct(table) & (table["radius"] >= radius)).to_numpy()


def summarize(table: pd.DataFrame, radii: list[float], identity: dict[str, Any]) -> dict[str, Any]:
    """The metrics of one noise level, as plain values.

    Args:
        radii: radii at which certified accuracy is reported; a table of preset radii reports its own instead.
        identity: what the table is a function of: mode, sigma, n, failure_prob, the bound, the arithmetic, and the
            preset radii if any. Tables of before do not name the bound (one_class) and the arithmetic (float).
    """
    n = identity["n"]
    if "n" not in table:  # the published form of a table, where every image got all n samples
        table = table.assign(n=n)
    common = {"mode": identity["mode"], "sigma": identity["sigma"], "images": len(table), "n": n}
    common |= {"mean_n": float(table["n"].mean()), "failure_prob": identity["failure_prob"]}
    common |= {"bound": bound_of(identity), "arithmetic": arithmetic_of(identity)}
    common["largest_radius"] = largest_radius_of(identity)
    if identity["mode"] == "sequential":
        own = preset_radii_metrics(table, identity["radii"])
    else:
        own = reference_metrics(table, radii, identity)
    return common | own | {"p_lower_quantiles": p_lower_quantiles(table), "p_lower_ecdf": p_lower_shares(table)}


def largest_radius_of(identity: dict[str, Any]) -> float:
    """The largest radius that a row can have, however good the model: what n samples certify if all of them agree, or
    the largest preset radius."""
    if identity["mode"] == "sequential":
        return float(max(identity["radii"]))
    return largest_radius(identity["n"], identity["failure_prob"], identity["sigma"], bound_of(identity))


def reference_metrics(table: pd.DataFrame, radii: list[float], identity: dict[str, Any]) -> dict[str, Any]:
    """ACR is the mean of radius * 1[correct] over all images, with its standard error. `acr_one_class` and
    `acr_two_class` are what the counts give by each bound; every other value is by the bound of the table.
    `constant_classifier_acr` is what a classifier that always answers the most frequent class would score: ACR alone
    flatters large sigmas (Sun et al. 2024). `stopped_early` is the share of images that early abstention stopped
    early: their p_lower is 0."""
    scores = certified_radii(table)
    shares = table["label"].value_counts(normalize=True)
    return {
        "acr": float(scores.mean()),
        "acr_standard_error": float(scores.std(ddof=1) / np.sqrt(len(scores))) if len(scores) > 1 else None,
        **{f"acr_{bound}": acr_by(bound, table, identity) for bound in BOUNDS},
        "constant_classifier_acr": float(shares.max() * largest_radius_of(identity)),
        "clean_accuracy": float(is_correct(table).mean()),
        "abstention": float((table["predict"] == ABSTAIN).mean()),
        "stopped_early": float((table["n"] < identity["n"]).mean()),
        "certified_accuracy": {str(radius): certified_accuracy(table, radius) for radius in radii},
    }


def acr_by(bound: Bound, table: pd.DataFrame, identity: dict[str, Any]) -> float | None:
    """The ACR that the table's counts give by `bound`; None where it is another bound than the table's and there are no
    counts, as in the field's form."""
    if bound != bound_of(identity) and "counts" not in table:
        return None
    return float(certified_radii(rebound(table, identity, bound)).mean())


def preset_radii_metrics(table: pd.DataFrame, radii: list[float]) -> dict[str, Any]:
    """Certified accuracy at the preset radii, and per radius the share of images that n samples left undecided.

    No ACR: the radii were chosen, not found."""
    decisions = table["decisions"].str.split(" ", expand=True)
    return {
        "certified_accuracy": {str(radius): certified_accuracy(table, radius) for radius in radii},
        "undecided": {str(r): float((decisions[i] == "undecided").mean()) for i, r in enumerate(radii)},
    }


def p_lower_quantiles(table: pd.DataFrame) -> dict[str, float] | None:
    """Quantiles of p_lower; None for a table in the published form, which lacks it."""
    if "p_lower" not in table:
        return None
    return {str(q): float(table["p_lower"].quantile(q)) for q in (0.05, 0.25, 0.5, 0.75, 0.95)}


def p_lower_shares(table: pd.DataFrame) -> dict[str, float] | None:
    """The empirical distribution of p_lower at `P_LOWER_POINTS`: the share of images whose p_lower is at most that."""
    if "p_lower" not in table:
        return None
    return {str(p): float((table["p_lower"] <= p).mean()) for p in P_LOWER_POINTS}


def p_lower_ecdf(table: pd.DataFrame, sigma: float) -> pd.DataFrame:
    """The empirical distribution function of p_lower, the bound on the probability of the class that was selected.

    ACR weighs an image the more the closer this probability is to 1, and so says little of the images in between (Sun
    et al. 2024). All images count, also those whose answer is wrong or withheld; early abstention states 0.

    Returns:
        Columns sigma, p_lower, and share, of the images whose p_lower is at most that; from 0 to the largest p_lower,
        in at most `CURVE_POINTS` steps at equal distances in the share of images.
        No rows for a table in the field's form, which does not hold it.
    """
    if "p_lower" not in table:
        return pd.DataFrame(columns=["sigma", "p_lower", "share"])
    values = np.sort(table["p_lower"].to_numpy(dtype=float))
    steps = np.unique([0.0, *np.quantile(values, np.linspace(0, 1, CURVE_POINTS), method="inverted_cdf")])
    share = np.searchsorted(values, steps, side="right") / len(values)
    return pd.DataFrame({"sigma": sigma, "p_lower": steps, "share": np.round(share, 6)})


def certified_accuracy(table: pd.DataFrame, radius: float) -> dict[str, float]:
    """Share of images certified at `radius`, with a Clopper-Pearson interval."""
    hits = is_certified(table, radius)
    low, high = proportion_confint(int(hits.sum()), len(hits), alpha=1 - CONFIDENCE, method="beta")
    return {"value": float(hits.mean()), "low": float(low), "high": float(high)}


def curve(table: pd.DataFrame, sigma: float, ceiling: float) -> pd.DataFrame:
    """Certified accuracy over radii from 0 to just past the largest, and never past the ceiling.

    No model can be certified beyond the ceiling: a drop to zero there would look like this model's failure.

    Args:
        ceiling: the largest radius that a row of the table can have; see `largest_radius_of`.

    Returns:
        Columns sigma, radius, certified_accuracy, and largest_radius, the ceiling.
    """
    end = min(1.02 * max(float(certified_radii(table).max()), 1e-3), ceiling)
    radii = (
        np.floor(np.linspace(0, end, CURVE_POINTS) * 1e6) / 1e6
    )  # rounded before counting, and down: the end is reached
    right = is_correct(table).to_numpy()
    accuracy = [(right & (table["radius"].to_numpy() >= radius)).mean() for radius in radii]
    columns = {"sigma": sigma, "radius": radii, "certified_accuracy": np.round(accuracy, 6)}
    return pd.DataFrame(columns | {"largest_radius": round(ceiling, 6)})
