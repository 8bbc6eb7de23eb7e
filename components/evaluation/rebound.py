"""A table of certificates under the other bound, from the counts that it holds: no new samples."""

from typing import Any

import pandas as pd

from components.certification.bounds import certified_radius, probability_bounds
from components.certification.table import ABSTAIN
from components.params import Bound


def bound_of(identity: dict[str, Any]) -> Bound:
    """The bound that a table was made with; tables of before say nothing and have the one-class bound."""
    bound: Bound = identity.get("bound", "one_class")
    return bound


def rebound(table: pd.DataFrame, identity: dict[str, Any], bound: Bound) -> pd.DataFrame:
    """The table that the same samples give under `bound`: other predict, radius, correct, p_lower and p_upper.

    An image that was spared samples by early abstention keeps abstaining: a bound of Clopper-Pearson is for a size that
    was fixed beforehand.

    Args:
        table: of the reference procedure, with its columns label, selected, counts and n.
        identity: what the table is a function of: sigma, n, failure_prob and its bound.
    """
    if bound == bound_of(identity):
        return table
    rows = [_row(row, identity, bound) for row in table.to_dict("records")]
    columns = ["predict", "radius", "correct", "p_lower", "p_upper"]
    return table.assign(**pd.DataFrame(rows, columns=columns, index=table.index))


def _row(row: dict[str, Any], identity: dict[str, Any], bound: Bound) -> tuple[int, float, int, float, float]:
    if row["n"] < identity["n"]:
        return ABSTAIN, 0.0, 0, 0.0, 1.0
    counts, selected = [int(count) for count in str(row["counts"]).split()], int(row["selected"])
    p_lower, p_upper = probability_bounds(bound, counts, selected, int(row["n"]), identity["failure_prob"])
    if p_lower <= p_upper:
        return ABSTAIN, 0.0, 0, p_lower, p_upper
    radius = certified_radius(p_lower, identity["sigma"], p_upper)
    return selected, radius, int(selected == row["label"]), p_lower, p_upper
