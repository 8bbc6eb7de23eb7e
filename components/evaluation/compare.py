"""Two tables of certificates on the same images, compared pair by pair."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from statsmodels.stats.weightstats import DescrStatsW

from components.evaluation.metrics import certified_radii


@dataclass(frozen=True)
class PairedDifference:
    """Mean difference of ACR (second minus first), its standard error and its confidence interval."""

    mean: float
    standard_error: float
    low: float
    high: float


def paired_acr_difference(first: pd.DataFrame, second: pd.DataFrame, confidence: float = 0.95) -> PairedDifference:
    """ACR of `second` minus ACR of `first`, by the t interval of the per-image differences.

    Independent intervals would hide the difference: most of the variance is between images, and cancels in pairs.

    Raises:
        ValueError: the tables do not hold the same images with the same labels.
    """
    first, second = first.sort_values("idx"), second.sort_values("idx")
    if not np.array_equal(first[["idx", "label"]], second[["idx", "label"]]):
        raise ValueError("the two tables hold different images or labels: certify both on the same images")
    stats = DescrStatsW(certified_radii(second) - certified_radii(first))
    low, high = stats.tconfint_mean(alpha=1 - confidence)
    return PairedDifference(float(stats.mean), float(stats.std_mean), float(low), float(high))
