"""Metrics of one table of certificates. Reads rows, computes nothing else."""

from typing import Any

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from components.certification.bounds import largest_radius
from components.certification.table import ABSTAIN

CONFIDENCE = 0.95
"""Of the intervals on certified accuracy."""


def certified_radii(table: pd.DataFrame) -> np.ndarray:
    """Per image the radius within which the right class is certified; 0 where the answer is wrong or withheld."""
    return (table["radius"] * is_correct(table)).to_numpy(dtype=float)


def is_correct(table: pd.DataFrame) -> pd.Series:
    return table["predict"] == table["label"]


def is_certified(table: pd.DataFrame, radius: float) -> np.ndarray:
    """Per image whether the right class is certified at `radius`; at 0, whether the smoothed classifier is right."""
    return (is_correct(table) & (table["radius"] >= radius)).to_numpy()


def summarize(table: pd.DataFrame, radii: list[float], *, sigma: float, n: int, failure_prob: float) -> dict[str, Any]:
    """The metrics of one noise level, as plain values.

    ACR is the mean of radius * 1[correct] over all images, with its standard error. `constant_classifier_acr` is what
    a classifier that always answers the most frequent class would score: ACR alone flatters large sigmas (Sun et al.
    2024).
    """
    scores = certified_radii(table)
    shares = table["label"].value_counts(normalize=True)
    return {
        "sigma": sigma,
        "images": len(table),
        "n": n,
        "failure_prob": failure_prob,
        "acr": float(scores.mean()),
        "acr_standard_error": float(scores.std(ddof=1) / np.sqrt(len(scores))) if len(scores) > 1 else None,
        "constant_classifier_acr": float(shares.max() * largest_radius(n, failure_prob, sigma)),
        "clean_accuracy": float(is_correct(table).mean()),
        "abstention": float((table["predict"] == ABSTAIN).mean()),
        "certified_accuracy": {str(radius): certified_accuracy(table, radius) for radius in radii},
        "p_lower_quantiles": (
            {str(q): float(table["p_lower"].quantile(q)) for q in (0.05, 0.25, 0.5, 0.75, 0.95)}
            if "p_lower" in table
            else None
        ),
    }


def certified_accuracy(table: pd.DataFrame, radius: float) -> dict[str, float]:
    """Share of images certified at `radius`, with a Clopper-Pearson interval."""
    hits = is_certified(table, radius)
    low, high = proportion_confint(int(hits.sum()), len(hits), alpha=1 - CONFIDENCE, method="beta")
    return {"value": float(hits.mean()), "low": float(low), "high": float(high)}


def curve(table: pd.DataFrame, sigma: float, points: int = 200) -> pd.DataFrame:
    """Certified accuracy over radii from 0 to just past the largest: columns sigma, radius, certified_accuracy."""
    scores = certified_radii(table)
    radii = np.linspace(0, 1.02 * max(float(scores.max()), 1e-3), points).round(6)  # rounded before counting
    right = is_correct(table).to_numpy()
    accuracy = [(right & (table["radius"].to_numpy() >= radius)).mean() for radius in radii]
    return pd.DataFrame({"sigma": sigma, "radius": radii, "certified_accuracy": np.round(accuracy, 6)})
