"""Certified accuracy over the radius, all noise levels in one plot, rendered without a browser or a network."""

import json
from pathlib import Path
from typing import Any

import pandas as pd


def certified_accuracy_spec(curves: pd.DataFrame, template: Path) -> dict[str, Any]:
    """The Vega-Lite spec that `dvc plots show` draws, from the same template, with the data filled in."""
    spec = json.loads(template.read_text())
    spec["data"] = {"values": curves.to_dict("records")}
    anchors = {
        "<DVC_METRIC_TITLE>": "Certified accuracy",
        "<DVC_METRIC_X>": "radius",
        "<DVC_METRIC_Y>": "certified_accuracy",
        "<DVC_METRIC_X_LABEL>": "L2 radius",
        "<DVC_METRIC_Y_LABEL>": "Certified accuracy",
    }
    del spec["encoding"]["strokeDash"]  # tells revisions apart, of which there is one here
    filled: dict[str, Any] = _replace_anchors(spec, anchors)
    return filled


def _replace_anchors(node: Any, anchors: dict[str, str]) -> Any:
    if isinstance(node, dict):
        return {key: _replace_anchors(value, anchors) for key, value in node.items()}
    if isinstance(node, list):
        return [_replace_anchors(item, anchors) for item in node]
    return anchors.get(node, node) if isinstance(node, str) else node


def render(spec: dict[str, Any], png: Path, html: Path) -> None:
    """Write the plot as PNG and as one self-contained HTML page."""
    import vl_convert

    render_png(spec, png)
    html.write_text(vl_convert.vegalite_to_html(spec, bundle=True))


def render_png(spec: dict[str, Any], png: Path) -> None:
    """Write a Vega-Lite plot as PNG."""
    import vl_convert

    png.write_bytes(vl_convert.vegalite_to_png(spec, scale=2))
