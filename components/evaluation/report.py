"""Metrics as tables for people. Everything about a radius is rounded down."""

import math
from typing import Any

from components.certification.table import display_radius


def summary_rows(metrics: dict[str, dict[str, Any]], columns: int | None = None) -> tuple[list[str], list[list[str]]]:
    """Header and one row per noise level, certified accuracy at up to `columns` radii."""
    radii = list(next(iter(metrics.values()))["certified_accuracy"])
    if columns and len(radii) > columns:
        radii = radii[:: math.ceil(len(radii) / columns)]
    header = ["sigma", "clean acc", "ACR", "floor", *(f"r={radius}" for radius in radii), "abstain", "n", "images"]
    rows = []
    for key, values in metrics.items():
        error = values["acr_standard_error"]
        rows.append(
            [
                key,
                f"{values['clean_accuracy']:.3f}",
                display_radius(values["acr"]) + (f" ± {error:.3f}" if error is not None else ""),
                display_radius(values["constant_classifier_acr"]),
                *(f"{values['certified_accuracy'][radius]['value']:.3f}" for radius in radii),
                f"{values['abstention']:.3f}",
                f"{values['n']:,}",
                str(values["images"]),
            ]
        )
    return header, rows


def text_table(header: list[str], rows: list[list[str]]) -> str:
    """Columns aligned for a terminal."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in [header, *rows]]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def markdown_report(metrics: dict[str, dict[str, Any]], dataset: str, plot: str) -> str:
    """The report page: one table, one plot, and how to read them."""
    header, rows = summary_rows(metrics)
    first = next(iter(metrics.values()))
    table = "\n".join(
        [
            "| " + " | ".join(header) + " |",
            "|" + "---:|" * len(header),
            *("| " + " | ".join(row) + " |" for row in rows),
        ]
    )
    return (
        f"# Certified robustness on {dataset}\n\n{table}\n\n![Certified accuracy over the L2 radius]({plot})\n\n"
        "`ACR` is the average certified radius over all test images (0 where the answer is wrong or withheld) with its "
        "standard error; `floor` is the ACR of a classifier that always answers the most frequent class; `r=` columns "
        "are certified accuracies. Each certificate holds with probability at least "
        f"{1 - first['failure_prob']:g} over its sampling. Radii are rounded down.\n"
    )
