"""Certified accuracy over the radius, and the distribution of p_lower: all noise levels in one plot each, rendered
without a browser or a network."""

import json
from pathlib import Path
from typing import Any

import pandas as pd


def spec_of(points: pd.DataFrame, template: Path, anchors: dict[str, str]) -> dict[str, Any]:
    """The Vega-Lite spec that `dvc plots show` draws, from the same template, with the data filled in.

    Args:
        anchors: what dvc.yaml says of the plot: title, x, y, x_label, y_label.
    """
    spec = json.loads(template.read_text(encoding="utf-8"))
    spec["data"] = {"values": points.to_dict("records")}
    del spec["layer"][0]["encoding"]["strokeDash"]  # it distinguishes revisions, and here is only one
    filled: dict[str, Any] = _replace_anchors(spec, {f"<DVC_METRIC_{name.upper()}>": anchors[name] for name in anchors})
    return filled


def certified_accuracy_spec(curves: pd.DataFrame, template: Path, title: str = "Certified accuracy") -> dict[str, Any]:
    """Certified accuracy over the radius; see `spec_of`."""
    axes = {"x": "radius", "y": "certified_accuracy", "x_label": "L2 radius", "y_label": "Certified accuracy"}
    return spec_of(curves, template, {"title": title, **axes})


def p_lower_spec(ecdf: pd.DataFrame, template: Path, title: str = "Distribution of p_lower") -> dict[str, Any]:
    """The empirical distribution of p_lower; see `spec_of`."""
    axes = {"x": "p_lower", "y": "share", "x_label": "p_lower", "y_label": "Share of images at or below"}
    return spec_of(ecdf, template, {"title": title, **axes})


def render_for_print(spec: dict[str, Any], pdf: Path) -> list[Path]:
    """Write a Vega-Lite plot as PDF, where one unit of the plot is a point, and beside it as SVG; the files."""
    import vl_convert

    pdf.write_bytes(vl_convert.vegalite_to_pdf(spec))
    pdf.with_suffix(".svg").write_text(vl_convert.vegalite_to_svg(spec), encoding="utf-8")
    return [pdf, pdf.with_suffix(".svg")]


def _replace_anchors(node: Any, anchors: dict[str, str]) -> Any:
    if isinstance(node, dict):
        return {key: _replace_anchors(value, anchors) for key, value in node.items()}
    if isinstance(node, list):
        return [_replace_anchors(item, anchors) for item in node]
    return anchors.get(node, node) if isinstance(node, str) else node


def render_png(spec: dict[str, Any], png: Path, scale: int = 2) -> None:
    """Write a Vega-Lite plot as PNG, with `scale` pixels for each of the plot's."""
    import vl_convert

    png.write_bytes(vl_convert.vegalite_to_png(spec, scale=scale))
