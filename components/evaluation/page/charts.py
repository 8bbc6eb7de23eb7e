"""The page's charts: Vega-Lite specs, and how they become SVG whose colours the page decides, light or dark."""

import re
from typing import Any

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from components.evaluation.metrics import CONFIDENCE, certified_radii, curve, largest_radius_of
from components.evaluation.page.level import Level
from components.evaluation.rebound import bound_of, rebound
from components.evaluation.report import BOUND_NAMES
from components.params import Bound

COLORS = [f"var(--series-{i})" for i in range(1, 7)]
DASHES = [[1, 0], [7, 3], [3, 2], [8, 3, 2, 3], [5, 2], [1, 3]]
"""Lines differ by dash as well as by colour."""
QUIET = "var(--quiet)"
CONFIG = {
    "font": "system-ui, sans-serif",
    "axis": {
        "labelColor": "currentColor",
        "titleColor": "currentColor",
        "gridColor": "var(--grid)",
        "domainColor": QUIET,
        "tickColor": QUIET,
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "titlePadding": 8,
        "labelFlush": False,
    },
    "legend": {
        "labelColor": "currentColor",
        "titleColor": "currentColor",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "orient": "top",
        "symbolStrokeWidth": 2.5,
        "symbolSize": 260,
        "labelLimit": 300,
        "columns": 3,
    },
    "view": {"stroke": None},
    "range": {"category": COLORS},
}
WIDTH, HEIGHT = 300, 210
SHARE = {"domain": [0, 1]}


def svg(layers: list[dict[str, Any]], number: int, width: int = WIDTH, height: int = HEIGHT) -> str:
    """Layers of a Vega-Lite plot as inline SVG without a name of its own: the page's figure says what it shows.

    Args:
        number: of the chart on its page, as ids must differ.
    """
    import vl_convert

    spec = {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "background": None,
        "config": CONFIG,
        "width": width,
        "height": height,
        "layer": layers,
    }
    drawn = vl_convert.vegalite_to_svg(spec)
    drawn = re.sub(r'\b(id="|url\(#)', rf"\1chart-{number}-", drawn)
    drawn = re.sub(r' (role|aria-[a-z]+)="[^"]*"', "", drawn)  # a name per point is noise to a screen reader
    drawn = re.sub(r" xmlns(:xlink)?=\"[^\"]*\"", "", drawn)  # of files; it looks like a request
    return drawn.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)


def field(name: str, title: str | None = "", kind: str = "quantitative", **more: Any) -> dict[str, Any]:
    """A channel. Without a title it takes that of another layer; None is for no title."""
    return {"field": name, "type": kind} | ({} if title == "" else {"title": title}) | more


def with_intervals(points: pd.DataFrame, images: int) -> pd.DataFrame:
    """The points of a curve of certified accuracy, with their Clopper-Pearson intervals as columns low and high."""
    counts = (points["certified_accuracy"] * images).round().astype(int)
    low, high = proportion_confint(counts, images, alpha=1 - CONFIDENCE, method="beta")
    return points.assign(low=np.nan_to_num(low), high=np.where(np.isnan(high), 1.0, high))


def level_curve(level: Level) -> pd.DataFrame:
    """Certified accuracy of one level by its own bound, with intervals."""
    points = curve(level.table, level.sigma, largest_radius_of(level.identity))
    return with_intervals(points, len(level.table)).assign(sigma=level.key)


def by_sigma(levels: list[Level]) -> dict[str, Any]:
    """Colour and dash by noise level."""
    keys = [level.key for level in levels]
    colors = [color_of(i) for i in range(len(keys))]
    dashes = [DASHES[i % len(DASHES)] for i in range(len(keys))]
    return {
        "color": field("sigma", "σ", "nominal", scale={"domain": keys, "range": colors}),
        "strokeDash": field("sigma", "σ", "nominal", scale={"domain": keys, "range": dashes}),
    }


def color_of(place: int) -> str:
    """The colour of the noise level at a place in the list."""
    return COLORS[place % len(COLORS)]


def all_curves(levels: list[Level]) -> list[dict[str, Any]]:
    """All noise levels: certified accuracy over the radius, with bands and ceilings."""
    curves = [level_curve(level) for level in levels]
    bands = [band(curve, color_of(i)) for i, curve in enumerate(curves)]
    lines = {
        "data": {"values": pd.concat(curves).to_dict("records")},
        "mark": {"type": "line", "interpolate": "step-before", "strokeWidth": 2.5},
        "encoding": {"x": field("radius", "L2 radius"), "y": field("certified_accuracy")} | by_sigma(levels),
    }
    return [*bands, lines, *ceiling_marks(levels)]


def band(points: pd.DataFrame, color: str) -> dict[str, Any]:
    """The intervals of a curve."""
    y = field("low", "certified accuracy", scale=SHARE)
    return {
        "data": {"values": points[["radius", "low", "high"]].to_dict("records")},
        "mark": {"type": "area", "interpolate": "step-before", "opacity": 0.17, "color": color},
        "encoding": {"x": field("radius", "L2 radius"), "y": y, "y2": {"field": "high"}},
    }


def ceiling_marks(levels: list[Level]) -> list[dict[str, Any]]:
    """Where nothing more can be certified: a rule per level, with its name."""
    marks: list[dict[str, Any]] = []
    for i, level in enumerate(levels):
        several = len(levels) > 1
        values = [
            {"radius": largest_radius_of(level.identity), "said": f"limit, σ {level.key}" if several else "limit"}
        ]
        rule = {"type": "rule", "strokeDash": [3, 3], "strokeWidth": 1.5, "color": color_of(i) if several else QUIET}
        text = {"type": "text", "baseline": "bottom", "dy": -4, "fontSize": 11, "color": "currentColor"}
        marks.append({"data": {"values": values}, "mark": rule, "encoding": {"x": field("radius")}})
        places = {"x": field("radius"), "y": {"value": 0}, "text": {"field": "said"}}
        marks.append({"data": {"values": values}, "mark": text, "encoding": places})
    return marks


def one_curve(level: Level) -> list[dict[str, Any]]:
    """One noise level: its curve with the band, the other bound, the last commit, the constant classifier, published
    points, limit."""
    own, limit = bound_of(level.identity), largest_radius_of(level.identity)
    points = level_curve(level)
    parts = {BOUND_NAMES[own]: (points, COLORS[0], [1, 0])}
    if "counts" in level.table:
        other: Bound = "one_class" if own == "two_class" else "two_class"
        rows, end = rebound(level.table, level.identity, other), largest_radius_of(level.identity | {"bound": other})
        parts[BOUND_NAMES[other]] = (curve(rows, level.sigma, end), COLORS[1], [6, 3])
    most = float(level.table["label"].value_counts(normalize=True).max())
    parts["constant"] = (pd.DataFrame({"radius": [0, limit], "certified_accuracy": most}), QUIET, [2, 3])
    if level.previous:
        parts[f"last commit ({level.previous.commit})"] = (level.previous.curve, COLORS[2], [8, 3, 2, 3])
    drawn = [points.assign(which=name) for name, (points, _, _) in parts.items()]
    values = pd.concat(drawn)[["radius", "certified_accuracy", "which"]].to_dict("records")
    colors = {"domain": list(parts), "range": [color for _, color, _ in parts.values()]}
    dashes = {"domain": list(parts), "range": [dash for _, _, dash in parts.values()]}
    lines = {
        "data": {"values": values},
        "mark": {"type": "line", "interpolate": "step-before", "strokeWidth": 2},
        "encoding": {
            "x": field("radius", "L2 radius"),
            "y": field("certified_accuracy"),
            "color": field("which", None, "nominal", scale=colors),
            "strokeDash": field("which", None, "nominal", scale=dashes),
        },
    }
    return [band(points, COLORS[0]), lines, *published_marks(level), *ceiling_marks([level])]


def published_marks(level: Level) -> list[dict[str, Any]]:
    """The published points, where there are some."""
    if level.published_curve is None or not len(level.published_curve):
        return []
    mark = {"type": "point", "shape": "diamond", "filled": False, "color": "currentColor", "size": 70}
    places = {"x": field("radius"), "y": field("certified_accuracy")}
    return [{"data": {"values": level.published_curve.to_dict("records")}, "mark": mark, "encoding": places}]


def radii_histogram(level: Level, bins: int = 24) -> list[dict[str, Any]]:
    """How many images have which radius, where the right class is certified; the rest is counted at the left."""
    limit = largest_radius_of(level.identity)
    radii = certified_radii(level.table)
    edges = np.linspace(0, limit * (1 + 1e-9), bins + 1)
    heights, _ = np.histogram(radii[radii > 0], edges)
    bars = pd.DataFrame({"start": edges[:-1], "end": edges[1:], "images": heights})
    none = pd.DataFrame({"start": [-limit / bins * 1.6], "end": [-limit / bins * 0.6], "images": [(radii == 0).sum()]})
    y = field("images", "images")
    axis = {"labelExpr": "datum.value < 0 ? '' : datum.label"}  # left of 0 there are no radii
    x = field("start", "certified L2 radius", axis=axis, scale={"nice": False})
    places = {"x": x, "x2": {"field": "end"}, "y": y, "y2": {"datum": 0}}
    return [
        {"data": {"values": bars.to_dict("records")}, "mark": {"type": "bar", "color": COLORS[0]}, "encoding": places},
        {
            "data": {"values": none.to_dict("records")},
            "mark": {"type": "bar", "fill": None, "stroke": COLORS[1], "strokeWidth": 2},
            "encoding": places,
        },
    ]


def p_lower_curves(ecdf: pd.DataFrame, levels: list[Level]) -> list[dict[str, Any]]:
    """The empirical distribution of p_lower, of all noise levels.

    Args:
        ecdf: columns sigma (as `Level.key`), p_lower and share.
    """
    encoding = {"x": field("p_lower", "p_lower", scale=SHARE), "y": field("share", "share of images", scale=SHARE)}
    mark = {"type": "line", "interpolate": "step-after", "strokeWidth": 2.5}
    return [{"data": {"values": ecdf.to_dict("records")}, "mark": mark, "encoding": encoding | by_sigma(levels)}]


def has_column(level: Level, column: str) -> bool:
    """Whether a training history has a value in this column."""
    return column in level.epochs and bool(level.epochs[column].notna().any())


def training_curves(levels: list[Level], column: str, title: str) -> list[dict[str, Any]]:
    """One column of the training histories over the epochs, of the levels that have it."""
    trained = [level for level in levels if has_column(level, column)]
    values = pd.concat([level.epochs.assign(sigma=level.key)[["epoch", column, "sigma"]].dropna() for level in trained])
    mark = {"type": "line", "strokeWidth": 2, "point": len(values) <= 3 * len(trained)}
    encoding = {"x": field("epoch", "epoch"), "y": field(column, title)} | by_sigma(levels)
    return [{"data": {"values": values.to_dict("records")}, "mark": mark, "encoding": encoding}]


def attack_points(levels: list[Level]) -> list[dict[str, Any]]:
    """Attacked over certified radius, one point per image, and the diagonal that no point may lie below."""
    found = pd.concat([one.attacks.assign(sigma=one.key) for one in levels if one.attacks is not None])
    found = found.dropna(subset=["attacked"])[["radius", "attacked", "sigma"]]
    end = float(found[["radius", "attacked"]].max().max()) if len(found) else 1.0
    diagonal = {"values": [{"radius": 0, "attacked": 0}, {"radius": end, "attacked": end}]}
    places = {"x": field("radius", "certified L2 radius"), "y": field("attacked", "attacked L2 radius")}
    color = by_sigma(levels)["color"]
    shape = field("sigma", "σ", "nominal", scale={"domain": color["scale"]["domain"]})
    return [
        {
            "data": {"values": found.to_dict("records")},
            "mark": {"type": "point", "filled": False, "size": 50},
            "encoding": places | {"color": color, "shape": shape},
        },
        {"data": diagonal, "mark": {"type": "line", "color": QUIET, "strokeDash": [4, 4]}, "encoding": places},
    ]
