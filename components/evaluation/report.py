"""Metrics as tables for people. All radii are rounded down."""

import math
from typing import Any

from components.certification.table import display_radius
from components.tools.wording import counted


def summary_rows(metrics: dict[str, dict[str, Any]], columns: int | None = None) -> tuple[list[str], list[list[str]]]:
    """Header and one row per noise level, certified accuracy at up to `columns` radii."""
    radii = sorted({float(radius) for values in metrics.values() for radius in values["certified_accuracy"]})
    if columns and len(radii) > columns:
        radii = radii[:: math.ceil(len(radii) / columns)]
    sequential = next(iter(metrics.values()))["mode"] == "sequential"
    cells = preset_radii_cells if sequential else reference_cells
    rows = [{"sigma": key, **cells(values, radii), "images": str(values["images"])} for key, values in metrics.items()]
    return list(rows[0]), [list(row.values()) for row in rows]


def reference_cells(values: dict[str, Any], radii: list[float]) -> dict[str, str]:
    error = values["acr_standard_error"]
    return {
        "clean acc": f"{values['clean_accuracy']:.3f}",
        "ACR": display_radius(values["acr"]) + (f" ± {error:.3f}" if error is not None else ""),
        "floor": display_radius(values["constant_classifier_acr"]),
        **accuracy_cells(values, radii),
        "abstain": f"{values['abstention']:.3f}",
        "n": f"{values['n']:,}",
    }


def preset_radii_cells(values: dict[str, Any], radii: list[float]) -> dict[str, str]:
    return {
        **accuracy_cells(values, radii),
        "undecided": f"{max(values['undecided'].values()):.3f}",
        "mean n": f"{values['mean_n']:,.0f}",
    }


def accuracy_cells(values: dict[str, Any], radii: list[float]) -> dict[str, str]:
    """Certified accuracy per radius; a dash where the table of this noise level does not cover the radius."""
    return {
        f"r={r}": f"{values['certified_accuracy'][str(r)]['value']:.3f}" if answers(values, r) else DASH for r in radii
    }


def answers(values: dict[str, Any], radius: float) -> bool:
    """Whether the table covers this radius: n samples can certify it, and preset radii include it."""
    return str(radius) in values["certified_accuracy"] and radius <= values.get("largest_radius", math.inf)


def remarks(metrics: dict[str, dict[str, Any]]) -> list[str]:
    """What a reader of the table must know and could overlook, one sentence each."""
    radii = sorted({float(radius) for values in metrics.values() for radius in values["certified_accuracy"]})
    ceilings = [
        f"{display_radius(values['largest_radius'])} at sigma {key}"
        for key, values in metrics.items()
        if not all(answers(values, radius) for radius in radii)
    ]
    sequential = next(iter(metrics.values()))["mode"] == "sequential"
    limit = (
        "was not asked for or is beyond n samples"
        if sequential
        else "is beyond what n samples can certify for any model"
    )
    said = [f"{DASH}: the radius {limit}; the largest is {', '.join(ceilings)}."] if ceilings else []
    return said + [
        f"sigma {key}: the ACR {display_radius(values['acr'])} is below the floor "
        f"{display_radius(values['constant_classifier_acr'])}: always giving the same answer would score more."
        for key, values in metrics.items()
        if "acr" in values and values["acr"] < values["constant_classifier_acr"]
    ]


def text_table(header: list[str], rows: list[list[str]]) -> str:
    """Columns aligned for a terminal."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in [header, *rows]]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def text_summary(metrics: dict[str, dict[str, Any]], extra: dict[str, list[str]] | None = None) -> str:
    """The metrics for a terminal: the table, up to five radii wide, and its remarks.

    Args:
        extra: more columns, by header, with one cell per noise level.
    """
    header, rows = summary_rows(metrics, columns=5)
    for name, cells in (extra or {}).items():
        header, rows = [*header, name], [[*row, cell] for row, cell in zip(rows, cells, strict=True)]
    return "\n".join([text_table(header, rows), *remarks(metrics)])


DASH = "–"
LEGENDS = {
    "reference": "`ACR` is the average certified radius over all test images (0 where the answer is wrong or withheld) "
    "with its standard error; `floor` is the ACR of a classifier that always answers the most frequent class.",
    "sequential": "Preset radii: each image got as many samples as it needed, `mean n` on average; `undecided` is the "
    "share of images that all n samples left undecided, at the radius where it is largest.",
}


def markdown_report(metrics: dict[str, dict[str, Any]], model: str, dataset: str, plot: str) -> str:
    """The report page: one table, one plot, and how to read them.

    Args:
        model: the name that the models are registered under.
        plot: the file of the picture, beside the page.
    """
    header, rows = summary_rows(metrics)
    first = next(iter(metrics.values()))
    table = "\n".join(
        [
            "| " + " | ".join(header) + " |",
            "|" + "---:|" * len(header),
            *("| " + " | ".join(row) + " |" for row in rows),
        ]
    )
    images = counted(first["images"], "test images", form=",")
    notes = "".join(f"- {remark}\n" for remark in remarks(metrics))
    return (
        f"# Certified robustness of {model}\n\nOn {images} of the source `{dataset}`.\n\n"
        f"{table}\n\n{notes}\n![Certified accuracy over the L2 radius]({plot})\n\n"
        "In the picture no curve goes past its dashed line, the largest radius that the samples can certify. "
        f"{LEGENDS[first['mode']]} `r=` columns are certified accuracies. Each certificate holds with "
        f"probability at least {1 - first['failure_prob']:g} over its sampling. Radii are rounded down.\n"
    )
