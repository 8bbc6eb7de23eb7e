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
    return {
        "clean acc": f"{values['clean_accuracy']:.3f}",
        **{f"ACR {name}": acr_cell(values, bound) for bound, name in BOUND_NAMES.items()},
        "floor": display_radius(values["constant_classifier_acr"]),
        **accuracy_cells(values, radii),
        "abstain": f"{values['abstention']:.3f}",
        "n": f"{values['n']:,}",
    }


def acr_cell(values: dict[str, Any], bound: str) -> str:
    """The ACR by one bound; with its standard error where that is the bound of the table."""
    acr, error = values[f"acr_{bound}"], values["acr_standard_error"]
    if acr is None:
        return DASH
    return display_radius(acr) + (f" ± {error:.3f}" if bound == values["bound"] and error is not None else "")


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
    uncounted = [key for key, values in metrics.items() if None in (values.get(f"acr_{b}", 0) for b in BOUND_NAMES)]
    limit = (
        "was not asked for or is beyond n samples"
        if sequential
        else "is beyond what n samples can certify for any model"
    )
    said = [f"{DASH}: the radius {limit}; the largest is {', '.join(ceilings)}."] if ceilings else []
    if uncounted:
        said.append(f"{DASH} for an ACR: the table at sigma {', '.join(uncounted)} holds no counts to compute it from.")
    return said + [
        f"sigma {key}: the {BOUND_NAMES[values['bound']]} ACR {display_radius(values['acr'])} is below the floor "
        f"{display_radius(values['constant_classifier_acr'])}: always giving the same answer would score more."
        for key, values in metrics.items()
        if "acr" in values and values["acr"] < values["constant_classifier_acr"]
    ]


def made_by(metrics: dict[str, dict[str, Any]]) -> str:
    """By which bound and in which arithmetic the tables were made, in one line."""
    levels: dict[tuple[str, str], list[str]] = {}
    for key, values in metrics.items():
        levels.setdefault((BOUND_NAMES[values["bound"]], values["arithmetic"]), []).append(key)
    said = [f"{bound} bound, {arithmetic} arithmetic" for bound, arithmetic in levels]
    if len(levels) > 1:
        said = [f"{what} at sigma {', '.join(keys)}" for what, keys in zip(said, levels.values(), strict=True)]
    return "Tables: " + "; ".join(said) + "."


def p_lower_lines(metrics: dict[str, dict[str, Any]]) -> list[str]:
    """The distribution of p_lower, one line per noise level; shares are of all images."""
    return [
        f"sigma {key}: p_lower of the selected class is at most 0.5 for {ecdf['0.5']:.3f}, at most 0.9 for "
        f"{ecdf['0.9']:.3f} and at most 0.99 for {ecdf['0.99']:.3f} of the images"
        + (
            f" (0 for the {stopped:.3f} whose sampling stopped early)."
            if (stopped := values.get("stopped_early"))
            else "."
        )
        for key, values in metrics.items()
        if (ecdf := values["p_lower_ecdf"])
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
    return "\n".join([text_table(header, rows), made_by(metrics), *remarks(metrics)])


DASH = "–"
BOUND_NAMES = {"one_class": "one-class", "two_class": "two-class"}
"""The bounds, for people."""
LEGENDS = {
    "reference": "`ACR` is the average certified radius over all test images (0 where the answer is wrong or "
    "withheld), by each bound from the same counts, with its standard error where that is the table's bound, which all "
    "other columns are by; published figures are one-class. `floor` is the ACR of a classifier that always answers the "
    "most frequent class.",
    "sequential": "Preset radii: each image got as many samples as it needed, `mean n` on average; `undecided` is the "
    "share of images that all n samples left undecided, at the radius where it is largest.",
}


ARITHMETICS = {
    "exact": "In exact arithmetic a certificate holds for the program that runs.",
    "float": "In float arithmetic a certificate leaves out how adding the noise rounds.",
}


def markdown_report(metrics: dict[str, dict[str, Any]], model: str, dataset: str, plot: str, p_lower_plot: str) -> str:
    """The report page: one table, two plots, and how to read them.

    Args:
        model: the name that the models are registered under.
        plot: the file of the picture of certified accuracy, beside the page.
        p_lower_plot: that of the distribution of p_lower.
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
    notes = "".join(f"- {remark}\n" for remark in [made_by(metrics), *remarks(metrics)])
    shares = "".join(f"- {line}\n" for line in p_lower_lines(metrics))
    arithmetics = " ".join(ARITHMETICS[name] for name in dict.fromkeys(one["arithmetic"] for one in metrics.values()))
    return (
        f"# Certified robustness of {model}\n\nOn {images} of the source `{dataset}`.\n\n"
        f"{table}\n\n{notes}\n![Certified accuracy over the L2 radius]({plot})\n\n"
        f"{shares}\n![Distribution of p_lower]({p_lower_plot})\n\n"
        "In the first picture no curve goes past its dashed line, the largest radius that the samples can certify. "
        "`p_lower` bounds from below the probability under noise of the class selected for an image, right or wrong. "
        f"{LEGENDS[first['mode']]} `r=` columns are certified accuracies. Each certificate holds with "
        f"probability at least {1 - first['failure_prob']:g} over its sampling. {arithmetics} Radii are rounded down.\n"
    )
