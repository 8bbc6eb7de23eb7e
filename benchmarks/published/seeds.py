"""Several seeds of each method: means with their deviation over seeds, and differences paired over seeds and images."""

from typing import Any

import numpy as np
import pandas as pd
from statsmodels.regression.linear_model import OLS

from components.evaluation.metrics import certified_radii
from components.evaluation.paired import PairedDifference

OVER_SEEDS = ("acr", "acr_two_class", "clean_accuracy", "abstention")


def has_seeds(runs: pd.DataFrame) -> bool:
    """Whether a method was run by several seeds at one noise level."""
    return bool(runs.groupby(["method", "sigma"]).size().gt(1).any())


def over_seeds(runs: pd.DataFrame, against: str) -> pd.DataFrame:
    """One row per noise level and method, the largest ACR first.

    Returns:
        Columns sigma, method, seeds (their number); mean and deviation over seeds of ACRs, clean accuracy and
        abstention, as acr and acr_deviation and so on; and gain, the PairedDifference of `against` minus this method
        over the seeds that both have, None where there are fewer than two.
    """
    rows: list[dict[str, Any]] = []
    for (sigma, method), own in runs.groupby(["sigma", "method"]):
        row: dict[str, Any] = {"sigma": sigma, "method": method, "seeds": len(own)}
        for name in OVER_SEEDS:
            row |= {name: own[name].mean(), f"{name}_deviation": own[name].std()}
        rival = runs[(runs["sigma"] == sigma) & (runs["method"] == against)]
        rows.append(row | {"gain": None if method == against else paired_over_seeds(tables(own), tables(rival))})
    return pd.DataFrame(rows).sort_values(["sigma", "acr"], ascending=[True, False], ignore_index=True)


def tables(runs: pd.DataFrame) -> dict[int, pd.DataFrame]:
    """The tables of certificates by seed."""
    return {own["seed"]: rows for own, rows in zip(runs["params"], runs["certificates"], strict=True)}


def paired_over_seeds(
    first: dict[int, pd.DataFrame], second: dict[int, pd.DataFrame], confidence: float = 0.95
) -> PairedDifference | None:
    """ACR of `second` minus that of `first`, the mean over the seeds and images that both have.

    Two trainings by one seed differ in more than chance, and so do two images under one training: the interval clusters
    the differences by seed and by image (Cameron, Gelbach & Miller 2011), with as many degrees of freedom as there are
    seeds or images, the fewer of the two, less one.

    Args:
        first: a table of certificates by seed; `second` likewise.

    Returns:
        None with fewer than two common seeds: they say nothing of another training.

    Raises:
        ValueError: two seeds were certified on other images.
    """
    seeds = sorted(first.keys() & second.keys())
    if len(seeds) < 2:
        return None
    radii = [radii_by_image(first, seeds), radii_by_image(second, seeds)]
    difference = (radii[1] - radii[0]).to_numpy()
    if np.ptp(difference) == 0:  # no spread, and no variance to estimate
        same = float(difference[0, 0])
        return PairedDifference(same, 0.0, same, same, float(same == 0))
    groups = np.column_stack([clusters.ravel() for clusters in np.indices(difference.shape)])
    fit = OLS(difference.ravel(), np.ones(difference.size)).fit(
        cov_type="cluster", cov_kwds={"groups": groups}, use_t=True
    )
    low, high = fit.conf_int(1 - confidence)[0]
    return PairedDifference(*(float(value) for value in (fit.params[0], fit.bse[0], low, high, fit.pvalues[0])))


def radii_by_image(certificates: dict[int, pd.DataFrame], seeds: list[int]) -> pd.DataFrame:
    """Certified radii, an image per row and a seed per column."""
    columns = {seed: pd.Series(certified_radii(certificates[seed]), certificates[seed]["idx"]) for seed in seeds}
    radii = pd.DataFrame(columns)
    if radii.isna().any(axis=None):
        raise ValueError("the seeds were certified on different images: certify the same ones, see certify.every")
    return radii
