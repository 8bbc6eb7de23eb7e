"""Two tables of certificates on the same images, compared pair by pair.

Most of the variance is between images. It cancels within pairs; independent intervals would hide a difference.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.weightstats import DescrStatsW

from components.evaluation.metrics import certified_radii, is_certified


@dataclass(frozen=True)
class PairedDifference:
    """Mean difference (second minus first), its standard error, its confidence interval, and the two-sided p-value of
    no difference."""

    mean: float
    standard_error: float
    low: float
    high: float
    p_value: float


def paired_acr_difference(first: pd.DataFrame, second: pd.DataFrame, confidence: float = 0.95) -> PairedDifference:
    """ACR of `second` minus ACR of `first`, by the bound of their radii: t interval and t test of the per-image
    differences.

    Raises:
        ValueError: the tables do not hold the same images with the same labels, or fewer than two.
    """
    first, second = same_images(first, second)
    stats = _paired(certified_radii(first), certified_radii(second))
    low, high = stats.tconfint_mean(alpha=1 - confidence)
    p_value = float(stats.ttest_mean()[1]) if stats.std_mean else float(stats.mean == 0)
    return PairedDifference(float(stats.mean), float(stats.std_mean), float(low), float(high), p_value)


def paired_accuracy_difference(
    first: pd.DataFrame, second: pd.DataFrame, radius: float, confidence: float = 0.95
) -> PairedDifference:
    """Certified accuracy at `radius` of `second` minus that of `first`: t interval of the per-image differences, and
    the p-value of McNemar's exact test, which uses the images that exactly one of the two certifies.

    Raises:
        ValueError: the tables do not hold the same images with the same labels, or fewer than two.
    """
    first, second = same_images(first, second)
    before, after = is_certified(first, radius), is_certified(second, radius)
    stats = _paired(before.astype(float), after.astype(float))
    low, high = stats.tconfint_mean(alpha=1 - confidence)
    counts = [[(before & after).sum(), (before & ~after).sum()], [(~before & after).sum(), (~before & ~after).sum()]]
    p_value = float(mcnemar(counts, exact=True).pvalue)
    return PairedDifference(float(stats.mean), float(stats.std_mean), float(low), float(high), p_value)


def same_images(first: pd.DataFrame, second: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both tables in the order of their images; raises ValueError where those or their labels differ."""
    first, second = first.sort_values("idx"), second.sort_values("idx")
    if not np.array_equal(first[["idx", "label"]], second[["idx", "label"]]):
        raise ValueError("the two tables hold different images or labels: certify both on the same images")
    return first, second


def _paired(first: np.ndarray, second: np.ndarray) -> DescrStatsW:
    if len(first) < 2:
        raise ValueError(f"the tables hold {len(first)} image: a comparison needs at least two, lower certify.every")
    return DescrStatsW(second - first)
