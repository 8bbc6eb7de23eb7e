"""Certified accuracy over the radius with its intervals, beside the published points: for the page and for papers."""

from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.published.kept import load_by_name
from components.evaluation import metrics, plots
from components.evaluation.page.charts import with_intervals
from components.params import level_key
from components.training.objectives import OBJECTIVES
from pipelines import artifacts

COLORS = ["#0072B2", "#000000", "#E69F00", "#009E73", "#D55E00", "#AA3377"]
DASHES = [[100, 0], [6, 3], [2, 2], [8, 2, 2, 2], [4, 1.5], [1, 2]]
"""Methods differ by dash as well as by colour, and published curves have markers: print may be grey."""
COLUMN = {"width": 240, "height": 200}
"""In points: a column of a two-column page, so that the text needs no scaling."""
SMALL = {"labelFontSize": 8, "titleFontSize": 8, "titleFontWeight": "normal"}
PAPER = {
    "font": "Liberation Sans, Arial, Helvetica, sans-serif",
    "axis": SMALL | {"titlePadding": 4, "gridColor": "#e4e4e4"},
    "legend": SMALL | {"orient": "top", "columns": 3, "symbolSize": 150, "labelLimit": 90, "rowPadding": 1},
    "view": {"stroke": None},
}


def write_figures(folders: list[Path], out: Path) -> list[Path]:
    """One figure per set and noise level, as PDF and as SVG.

    Raises:
        ValueError: see `load_by_name`.
    """
    points = pd.read_csv(artifacts.PUBLISHED_CURVES)
    sets = load_by_name(folders)
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name, runs in sets.items():
        for sigma, level in runs.groupby("sigma"):
            spec = figure(level, points[points["dataset"] == level["params"].iloc[0]["prepare.source"]])
            written += plots.render_for_print(spec, out / f"{name}-sigma-{level_key(float(str(sigma)))}.pdf")
    return written


def figure(level: pd.DataFrame, published: pd.DataFrame) -> dict[str, Any]:
    """The runs of one noise level, in the size of a column."""
    whole = {"type": "fit", "contains": "padding"}
    return drawing(level, published) | {"layer": layers(level, published), "config": PAPER, "autosize": whole, **COLUMN}


def panels(runs: pd.DataFrame, published: pd.DataFrame) -> dict[str, Any]:
    """All noise levels of a set side by side."""
    one = {"width": 300, "height": 240, "layer": layers(runs, published)}
    return drawing(runs, published) | {
        "facet": {"column": {"field": "sigma", "type": "nominal", "title": "σ"}},
        "spec": one,
    }


def drawing(runs: pd.DataFrame, published: pd.DataFrame) -> dict[str, Any]:
    """What is drawn: curves of the runs with their intervals, and the published points of their methods."""
    parts = []
    for _, seeds in runs.groupby(["method", "sigma"], sort=False):
        one = seeds.iloc[0]
        rows = pd.concat(list(seeds["certificates"]))  # of several seeds: their mean, with the interval of one
        curve = metrics.curve(rows, one["sigma"], metrics.largest_radius_of(one["identity"]))
        parts.append(with_intervals(curve, one["images"]).assign(method=one["method"], published=False))
    columns = ["sigma", "radius", "certified_accuracy", "method", "published", "low", "high", "largest_radius"]
    values = pd.concat([*parts, of_these(runs, published).assign(published=True)])[columns].round(4)
    rows = [{k: v for k, v in row.items() if not pd.isna(v)} for row in values.to_dict("records")]
    return {"$schema": "https://vega.github.io/schema/vega-lite/v5.json", "data": {"values": rows}}


def of_these(runs: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """The published points of a data set that are of the methods and noise levels of these runs."""
    return published[published["sigma"].isin(runs["sigma"]) & published["method"].isin(runs["method"])]


def layers(runs: pd.DataFrame, published: pd.DataFrame) -> list[dict[str, Any]]:
    """Bands of intervals, curves, published curves with markers, and the largest radius that the samples certify."""
    methods = [name for name in OBJECTIVES if name in set(runs["method"])]
    methods += sorted(set(runs["method"]) - set(methods))
    colors, dashes = ([looks[place_of(name) % len(looks)] for name in methods] for looks in (COLORS, DASHES))
    x = {"field": "radius", "type": "quantitative", "title": "L2 radius"}
    y = {"type": "quantitative", "title": "Certified accuracy", "scale": {"domain": [0, 1]}, "axis": {"tickCount": 5}}
    interval, share = {"x": x, "y": y | {"field": "low"}, "y2": {"field": "high"}}, y | {"field": "certified_accuracy"}
    fixed: list[dict[str, Any]] = []  # colours that are no encoding have no legend
    for name, color, dash in zip(methods, colors, dashes, strict=True):
        own = [{"filter": {"field": "method", "equal": name}}]
        band = {"type": "area", "opacity": 0.12, "color": color}
        points = {"type": "point", "size": 22, "color": color, "filled": True, "opacity": 1}
        line = {"type": "line", "strokeWidth": 0.8, "color": color, "strokeDash": dash}
        fixed += [{"mark": band, "transform": [*own, {"filter": "!datum.published"}], "encoding": interval}]
        theirs = {"transform": [*own, {"filter": "datum.published"}], "encoding": {"x": x, "y": share}}
        fixed += [{"mark": mark} | theirs for mark in (line, points)]

    title = "method" + (", published with markers" if len(of_these(runs, published)) else "")
    by_method = {"field": "method", "type": "nominal", "title": title}
    looks_of = {"color": by_method | {"scale": {"domain": methods, "range": colors}}}
    looks_of |= {"strokeDash": by_method | {"scale": {"domain": methods, "range": dashes}}}
    lines = {"mark": {"type": "line", "strokeWidth": 1.5}, "transform": [{"filter": "!datum.published"}]}
    limit = {"x": {"field": "limit", "type": "quantitative"}}
    once = [{"aggregate": [{"op": "max", "field": "largest_radius", "as": "limit"}], "groupby": ["sigma"]}]
    rule = {"mark": {"type": "rule", "strokeDash": [4, 4], "color": "#777777"}, "transform": once, "encoding": limit}
    return [*fixed, lines | {"encoding": {"x": x, "y": share} | looks_of}, rule]


def place_of(method: str) -> int:
    """A method looks the same in all figures; those of users share a look."""
    return list(OBJECTIVES).index(method) if method in OBJECTIVES else len(OBJECTIVES)
