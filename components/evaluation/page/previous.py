"""What the previous version of the project, the last commit, says of a noise level."""

import io
import json
from typing import Any

import numpy as np
import pandas as pd

from components.certification.table import display_radius
from components.evaluation.metrics import curve, largest_radius_of
from components.evaluation.page.level import Level, Previous
from components.evaluation.rebound import bound_of
from components.tools.wording import counted


def previous_of(level: Level, commit: str, curves: str, metrics: str) -> Previous | None:
    """The previous version of a level, if it is comparable and differs: None where the files are missing or in another
    form, lack the noise level, are of another procedure or bound, or have the present curve.

    Args:
        commit: its name.
        curves: text of its curves.csv.
        metrics: text of its metrics.json.
    """
    try:
        known, points = json.loads(metrics)[level.key], pd.read_csv(io.StringIO(curves)).astype(float)
        points = points.loc[points["sigma"] == level.sigma, ["radius", "certified_accuracy"]].reset_index(drop=True)
        made = (known["mode"], bound_of(known))
        said = difference(level, known)
    except (ValueError, KeyError, TypeError):  # files of an older form
        return None
    now = curve(level.table, level.sigma, largest_radius_of(level.identity))[list(points)]
    same = points.shape == now.shape and np.allclose(points, now)
    if made != (level.identity["mode"], bound_of(level.identity)) or points.empty or same:
        return None
    return Previous(commit, points, said)


def difference(level: Level, known: dict[str, Any]) -> str:
    """One sentence on the two ACRs, and one on other images or samples."""
    said = []
    if "acr" in level.summary:
        now, then = level.summary["acr"], float(known["acr"])
        said.append(
            f"ACR {display_radius(now)} here, {display_radius(then)} there ({round(now - then, 3) + 0.0:+.3f})."
        )  # + 0.0: never -0.000
    if (known["images"], known["n"]) != (level.summary["images"], level.summary["n"]):
        said.append(f"There with {counted(known['images'], 'images', form=',')} and n = {known['n']:,}.")
    return " ".join(said)
