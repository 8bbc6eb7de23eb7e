"""Two sets of runs, such as two precisions or two seeds, pair by pair, by the one-class bound."""

from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.published.page import load
from benchmarks.published.runs import FACTS
from components.certification.table import display_radius
from components.evaluation.paired import paired_acr_difference
from components.evaluation.report import text_table
from components.params import level_key

BY = "ACR by the one-class bound, as are all published figures, whatever bound a table was made with."


def compare(first: Path, second: Path) -> str:
    """What differs between their parameters, and the one-class ACR of each method at each noise level in both.

    Raises:
        ValueError: the sets share no finished run of one method and noise level, or the runs are of different images.
    """
    for folder in (first, second):
        if not list(folder.glob(f"*/*/{FACTS}")):
            raise ValueError(f"{folder} holds no finished run: see `python -m benchmarks.published run --help`")
    pairs = load(first).merge(load(second), on=["method", "sigma"], suffixes=("", "_second"))
    if pairs.empty:
        raise ValueError(f"{first} and {second} have no method at a noise level in common")
    header = ["sigma", "method", first.name, second.name, "difference", "paired 95 % interval"]
    rows = [row(pair) for pair in pairs.to_dict("records")]
    return "\n".join([*differing_parameters(first, second, pairs), text_table(header, rows), BY])


def differing_parameters(first: Path, second: Path, pairs: pd.DataFrame) -> list[str]:
    """The parameters that are not the same in all pairs, the arithmetic among them."""
    sides = [
        [
            params | {"arithmetic": made}
            for params, made in zip(pairs[f"params{end}"], pairs[f"arithmetic{end}"], strict=True)
        ]
        for end in ("", "_second")
    ]
    lines = (
        f"{key}: {own.get(key)} in {first.name}, {other.get(key)} in {second.name}"
        for own, other in zip(*sides, strict=True)
        for key in own | other
        if own.get(key) != other.get(key)
    )
    return list(dict.fromkeys(lines))


def row(pair: dict[Any, Any]) -> list[str]:
    difference = paired_acr_difference(pair["certificates"], pair["certificates_second"])
    return [
        level_key(pair["sigma"]),
        pair["method"],
        display_radius(pair["acr"]),
        display_radius(pair["acr_second"]),
        f"{difference.mean:+.4f}",
        f"[{difference.low:+.4f}, {difference.high:+.4f}]",
    ]
