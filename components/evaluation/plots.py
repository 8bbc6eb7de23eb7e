"""Certified accuracy over the radius, all noise levels in one plot, rendered without a browser or a network."""

import json
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from components.tools.files import write_text


def certified_accuracy_spec(curves: pd.DataFrame, template: Path, title: str = "Certified accuracy") -> dict[str, Any]:
    """The Vega-Lite spec that `dvc plots show` draws, from the same template, with the data filled in."""
    spec = json.loads(template.read_text(encoding="utf-8"))
    spec["data"] = {"values": curves.to_dict("records")}
    anchors = {
        "<DVC_METRIC_TITLE>": title,
        "<DVC_METRIC_X>": "radius",
        "<DVC_METRIC_Y>": "certified_accuracy",
        "<DVC_METRIC_X_LABEL>": "L2 radius",
        "<DVC_METRIC_Y_LABEL>": "Certified accuracy",
    }
    del spec["layer"][0]["encoding"]["strokeDash"]  # it distinguishes revisions, and here is only one
    filled: dict[str, Any] = _replace_anchors(spec, anchors)
    return filled


def _replace_anchors(node: Any, anchors: dict[str, str]) -> Any:
    if isinstance(node, dict):
        return {key: _replace_anchors(value, anchors) for key, value in node.items()}
    if isinstance(node, list):
        return [_replace_anchors(item, anchors) for item in node]
    return anchors.get(node, node) if isinstance(node, str) else node


def render(spec: dict[str, Any], png: Path, html: Path) -> None:
    """Write the plot as PNG and as one self-contained HTML page with the plot's title."""
    import vl_convert

    render_png(spec, png)
    title = f"<title>{escape(spec['title']['text'])}</title>"
    page = vl_convert.vegalite_to_html(spec, bundle=True)
    write_text(html, page.replace("<title>Chart</title>", title, 1))


def render_png(spec: dict[str, Any], png: Path) -> None:
    """Write a Vega-Lite plot as PNG."""
    import vl_convert

    png.write_bytes(vl_convert.vegalite_to_png(spec, scale=2))
