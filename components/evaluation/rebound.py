"""A table of certificates under the other bound, from the counts that it holds: no new samples."""

from typing import Any

import pandas as pd

from components.certification.bounds import certified_radius, probability_bounds
from components.certification.preset_radii import decided_by_counts, own_columns
from components.certification.table import ABSTAIN
from components.params import Bound

UNSAID = {"bound": "one_class", "arithmetic": "float"}
"""What the identities of tables of before mean by leaving an entry out."""


def bound_of(identity: dict[str, Any]) -> Bound:
    """The bound that a table was made with."""
    bound: Bound = (UNSAID | identity)["bound"]
    return bound


def arithmetic_of(identity: dict[str, Any]) -> str:
    """The arithmetic of the noise that a table was made with: `exact` or `float`."""
    return str((UNSAID | identity)["arithmetic"])


def counts_of(row: dict) -> list[int]:
    """The hits of each class in a row of a table."""
    return [int(count) for count in str(row["counts"]).split()]


def rebound(table: pd.DataFrame, identity: dict[str, Any], bound: Bound) -> pd.DataFrame:
    """The table that the same samples give under `bound`: other predict, radius, correct, p_lower and p_upper.

    Reference: an image that was spared samples by early abstention keeps abstaining, as a bound of Clopper-Pearson is
    for a size that was fixed beforehand. Preset radii: each row is decided by its final counts, and gets its decisions
    and looks from them; a run under `bound` would have gone on where that leaves a radius undecided.

    Args:
        table: with its columns label, selected, counts, n0 and n.
        identity: what the table is a function of: mode, sigma, n, failure_prob, its bound, and for preset radii these
            and reject_prob.
    """
    if bound == bound_of(identity):
        return table
    preset = identity["mode"] == "sequential"
    answer: Any = _preset_row if preset else _row
    rows = [answer(row, identity, bound) for row in table.to_dict("records")]
    columns = ["predict", "radius", "correct", "p_lower", "p_upper", *(["decisions", "looks"] if preset else [])]
    return table.assign(**pd.DataFrame(rows, columns=columns, index=table.index))


def _row(row: dict[str, Any], identity: dict[str, Any], bound: Bound) -> tuple[int, float, int, float, float]:
    if row["n"] < identity["n"]:
        return ABSTAIN, 0.0, 0, 0.0, 1.0
    counts, selected = counts_of(row), int(row["selected"])
    p_lower, p_upper = probability_bounds(bound, counts, selected, int(row["n"]), identity["failure_prob"])
    if p_lower <= p_upper:
        return ABSTAIN, 0.0, 0, p_lower, p_upper
    radius = certified_radius(p_lower, identity["sigma"], p_upper)
    return selected, radius, int(selected == row["label"]), p_lower, p_upper


def _preset_row(row: dict[str, Any], identity: dict[str, Any], bound: Bound) -> tuple[Any, ...]:
    counts, selected = counts_of(row), int(row["selected"])
    settings = {name: identity[name] for name in ("radii", "sigma", "failure_prob", "reject_prob")}
    new = decided_by_counts(counts, selected, int(row["n"]), n0=int(row["n0"]), bound=bound, **settings)
    correct = int(new.predict == row["label"])
    return new.predict, new.radius, correct, new.p_lower, new.p_upper, *own_columns(new)
