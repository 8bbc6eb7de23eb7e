"""Certified beside attacked radius, for people: how tight are the certificates?"""

import math
from typing import Any

import numpy as np
import pandas as pd

from components.certification.table import display_radius
from components.evaluation.report import DASH, text_table


def contradicted(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows whose class was seen to change inside their certificate, which is an open ball."""
    return rows[rows["attacked"] < rows["radius"]]  # false where no change was found: NaN


def summarize(rows: pd.DataFrame) -> dict[str, Any]:
    """How near the certificates of one noise level come to what attacks found.

    Args:
        rows: with columns radius and attacked, NaN where none was found.

    Returns:
        images; found, the share of them with an attack; and over these, None where there are none: median_ratio and
        largest_ratio of certified to attacked radius, and smallest_gap, attacked less certified radius; contradicted,
        the number of images.
    """
    found = rows[rows["attacked"].notna()]
    with np.errstate(divide="ignore"):  # where the image itself has another class
        ratios = found["radius"].to_numpy() / found["attacked"].to_numpy()
    gaps = (found["attacked"] - found["radius"]).to_numpy()
    return {
        "images": len(rows),
        "found": len(found) / len(rows),
        "median_ratio": float(np.median(ratios)) if len(found) else None,
        "largest_ratio": float(ratios.max()) if len(found) else None,
        "smallest_gap": float(gaps.min()) if len(found) else None,
        "contradicted": len(contradicted(rows)),
    }


def text_summary(levels: dict[str, dict[str, Any]]) -> str:
    """The summaries for a terminal, one line per noise level."""
    header = ["sigma", "images", "attack found", "median ratio", "largest ratio", "smallest gap", "contradicted"]
    rows = [
        [
            key,
            str(values["images"]),
            f"{values['found']:.3f}",
            *(cell(values[name]) for name in ("median_ratio", "largest_ratio", "smallest_gap")),
            str(values["contradicted"]),
        ]
        for key, values in levels.items()
    ]
    return f"{text_table(header, rows)}\nratio: certified to attacked radius; gap: attacked less certified radius"


def cell(value: float | None) -> str:
    """A figure for people, rounded down where it is positive."""
    if value is None:
        return DASH
    return display_radius(value) if 0 <= value < math.inf else f"{value:.3f}"


def certified_and_attacked_spec(rows: pd.DataFrame, title: str) -> dict[str, Any]:
    """The Vega-Lite plot of attacked over certified radius, one point per image with an attack, and the diagonal.

    Args:
        rows: with columns sigma, idx, radius and attacked, NaN where none was found.
    """
    found = rows.dropna(subset=["attacked"])
    end = float(max(rows["radius"].max(), found["attacked"].max() if len(found) else 0.0))
    x = {"field": "radius", "type": "quantitative", "title": "Certified radius (L2)"}
    y = {"field": "attacked", "type": "quantitative", "title": "Attacked radius (L2)"}
    tooltip = [{"field": name, "type": "quantitative"} for name in ("idx", "radius", "attacked")]
    color = {"field": "sigma", "type": "nominal", "title": "σ"}
    diagonal = {"values": [{"radius": 0, "attacked": 0}, {"radius": end, "attacked": end}]}
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "title": {
            "text": title,
            "subtitle": "The nearer to the line, the tighter; a point below it contradicts a certificate.",
        },
        "width": 420,
        "height": 420,
        "layer": [
            {
                "data": {"values": found[["sigma", "idx", "radius", "attacked"]].to_dict("records")},
                "mark": {"type": "point", "filled": True, "opacity": 0.6},
                "encoding": {"x": x, "y": y, "color": color, "tooltip": tooltip},
            },
            {
                "data": diagonal,
                "mark": {"type": "line", "strokeDash": [4, 4], "color": "grey"},
                "encoding": {"x": x, "y": y},
            },
        ],
    }
