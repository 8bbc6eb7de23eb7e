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

COLORS = [f"var(--series-{i})" for i in range(1, 7)]
DASHES = [[1, 0], [8, 3], [2, 2], [8, 3, 2, 3], [5, 2], [1, 3]]
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
        "labelFontSize": 13,
        "titleFontSize": 13,
        "titleFontWeight": "normal",
        "titlePadding": 8,
    },
    "legend": {
        "labelColor": "currentColor",
        "titleColor": "currentColor",
        "labelFontSize": 13,
        "titleFontSize": 13,
        "titleFontWeight": "normal",
        "orient": "top",
        "symbolStrokeWidth": 2.5,
        "symbolSize": 300,
        "labelLimit": 300,
        "columns": 3,
    },
    "view": {"stroke": None},
    "range": {"category": COLORS},
}
WIDTH, HEIGHT = 400, 250
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


def field(name: str, title: str | None = None, kind: str = "quantitative", **more: Any) -> dict[str, Any]:
    return {"field": name, "type": kind, "title": title} | more


def with_intervals(points: pd.DataFrame, images: int) -> pd.DataFrame:
    """The points of a curve of certified accuracy, with their Clopper-Pearson intervals as columns low and high."""
    counts = (points["certified_accuracy"] * images).round().astype(int)
    low, high = proportion_confint(counts, images, alpha=1 - CONFIDENCE, method="beta")
    return points.assign(low=np.nan_to_num(low), high=np.where(np.isnan(high), 1.0, high))


def level_curve(level: Level) -> pd.DataFrame:
    """Certified accuracy of one level by its own bound, with intervals."""
    points = curve(level.table, level.sigma, largest_radius_of(level.identity))
    return with_intervals(points, len(level.table)).assign(sigma=level.key)


def ceilings(levels: list[Level]) -> pd.DataFrame:
    """The largest radius that each level's samples can certify."""
    places = [largest_radius_of(level.identity) for level in levels]
    return pd.DataFrame({"radius": places, "sigma": [level.key for level in levels]})


def by_sigma(levels: list[Level], dashed: bool = True) -> dict[str, Any]:
    """Colour, and dash, by noise level."""
    keys = [level.key for level in levels]
    colors = [COLORS[i % len(COLORS)] for i in range(len(keys))]
    dashes = [DASHES[i % len(DASHES)] for i in range(len(keys))]
    channels = {"color": field("sigma", "σ", "nominal", scale={"domain": keys, "range": colors})}
    if dashed:
        channels["strokeDash"] = field("sigma", "σ", "nominal", scale={"domain": keys, "range": dashes})
    return channels


def all_curves(levels: list[Level]) -> list[dict[str, Any]]:
    """All noise levels: certified accuracy over the radius, with bands and ceilings."""
    values = pd.concat([level_curve(level) for level in levels]).to_dict("records")
    x = field("radius", "L2 radius")
    band = {
        "data": {"values": values},
        "mark": {"type": "area", "interpolate": "step-before", "opacity": 0.16},
        "encoding": {"x": x, "y": field("low", "certified accuracy", scale=SHARE), "y2": {"field": "high"}}
        | by_sigma(levels, dashed=False),
    }
    line = {
        "data": {"values": values},
        "mark": {"type": "line", "interpolate": "step-before", "strokeWidth": 2.5},
        "encoding": {"x": x, "y": field("certified_accuracy")} | by_sigma(levels),
    }
    return [band, line, *ceiling_marks(levels)]


def ceiling_marks(levels: list[Level]) -> list[dict[str, Any]]:
    """Where nothing more can be certified: a rule per level, with its name."""
    values = ceilings(levels).to_dict("records")
    x = field("radius")
    rule = {"type": "rule", "strokeDash": [3, 3], "strokeWidth": 1.5}
    text = {"type": "text", "align": "right", "baseline": "top", "dx": -4, "dy": 2, "angle": 0, "fontSize": 11}
    labels = [one | {"said": f"limit, σ {one['sigma']}" if len(values) > 1 else "limit of n"} for one in values]
    color = by_sigma(levels, dashed=False) if len(levels) > 1 else {"color": {"value": QUIET}}
    return [
        {"data": {"values": values}, "mark": rule, "encoding": {"x": x} | color},
        {
            "data": {"values": labels},
            "mark": text,
            "encoding": {"x": x, "y": {"value": 0}, "text": {"field": "said"}, "color": {"value": "currentColor"}},
        },
    ]


def one_curve(level: Level) -> list[dict[str, Any]]:
    """One noise level: its curve with the band, the other bound, the constant classifier, published points, limit."""
    own, sigma = bound_of(level.identity), level.sigma
    points = level_curve(level)
    parts = [points.assign(which=f"{BOUND_NAMES[own]} bound")]
    names = [f"{BOUND_NAMES[own]} bound"]
    other: Any = "one_class" if own == "two_class" else "two_class"
    if "counts" in level.table:
        facts = level.identity | {"bound": other}
        rows = rebound(level.table, level.identity, other)
        parts.append(curve(rows, sigma, largest_radius_of(facts)).assign(which=f"{BOUND_NAMES[other]} bound"))
        names.append(f"{BOUND_NAMES[other]} bound")
    limit = largest_radius_of(level.identity)
    most = float(level.table["label"].value_counts(normalize=True).max())
    constant = pd.DataFrame({"radius": [0, limit], "certified_accuracy": most, "which": "constant answer"})
    names.append("constant answer")
    values = pd.concat([*parts, constant])[["radius", "certified_accuracy", "which"]].to_dict("records")
    scale = {"domain": names, "range": [COLORS[0], COLORS[1], QUIET][-len(names) :]}
    scale["range"] = [COLORS[0], *([COLORS[1]] if len(names) > 2 else []), QUIET]
    dashes = {"domain": names, "range": [[1, 0], *([[6, 3]] if len(names) > 2 else []), [2, 3]]}
    x = field("radius", "L2 radius")
    band = {
        "data": {"values": points[["radius", "low", "high"]].to_dict("records")},
        "mark": {"type": "area", "interpolate": "step-before", "opacity": 0.18, "color": COLORS[0]},
        "encoding": {"x": x, "y": field("low", "certified accuracy", scale=SHARE), "y2": {"field": "high"}},
    }
    line = {
        "data": {"values": values},
        "mark": {"type": "line", "interpolate": "step-before", "strokeWidth": 2},
        "encoding": {
            "x": x,
            "y": field("certified_accuracy"),
            "color": field("which", None, "nominal", scale=scale),
            "strokeDash": field("which", None, "nominal", scale=dashes),
        },
    }
    return [band, line, *published_marks(level), *ceiling_marks([level])]


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
    places = {"x": field("start", "certified L2 radius of the right class"), "x2": {"field": "end"}, "y": y}
    return [
        {"data": {"values": bars.to_dict("records")}, "mark": {"type": "bar", "color": COLORS[0]}, "encoding": places},
        {
            "data": {"values": none.to_dict("records")},
            "mark": {"type": "bar", "color": "none", "stroke": COLORS[1], "strokeWidth": 2},
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


def training_curves(levels: list[Level], column: str, title: str) -> list[dict[str, Any]]:
    """One column of the training histories over the epochs."""
    trained = [level for level in levels if len(level.epochs)]
    values = pd.concat([level.epochs.assign(sigma=level.key)[["epoch", column, "sigma"]] for level in trained])
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
    shape = {"shape": field("sigma", "σ", "nominal", scale={"domain": [level.key for level in levels]})}
    return [
        {
            "data": {"values": found.to_dict("records")},
            "mark": {"type": "point", "filled": False, "size": 50},
            "encoding": places | by_sigma(levels, dashed=False) | shape,
        },
        {"data": diagonal, "mark": {"type": "line", "color": QUIET, "strokeDash": [4, 4]}, "encoding": places},
    ]
