"""The page itself."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from components.data.prepared import Description
from components.evaluation import attack_report, metrics
from components.evaluation.page import charts, examples, facts
from components.evaluation.page.examples import Images
from components.evaluation.page.level import Level
from components.evaluation.report import DASH, LEGENDS, made_by, p_lower_lines, remarks, summary_rows
from components.tools.page.template import fill
from components.tools.wording import counted

FOLDER = Path(__file__).parent


def render(name: str, description: Description, levels: list[Level], image: Images | None, no_images: str = "") -> str:
    """The report of a run as one self-contained HTML page; the same files give the same page.

    Args:
        name: that the models are registered under.
        levels: at least one.
        image: reads a test image by its number; None where there are none.
        no_images: why not.
    """
    return fill(FOLDER, values_of(name, description, levels, image) | {"no_images": no_images})


def values_of(name: str, description: Description, levels: list[Level], image: Images | None) -> dict[str, Any]:
    """What the template shows; see `render`."""
    summaries = {level.key: level.summary for level in levels}
    classes, first, found = description.classes, levels[0].summary, facts.finding(levels)
    header, rows = summary_rows(summaries)
    radii = [facts.finding([level]).get("radius", 0.0) for level in levels]
    return {
        "kind": "Certified robustness of",
        "name": name,
        "source": description.source,
        "images": counted(first["images"], "test images", form=","),
        "finding": found,
        "figures": facts.headline_figures(found["level"]),
        "header": header,
        "rows": rows,
        "dash": DASH,
        "notes": [made_by(summaries), *remarks(summaries)],
        "legend": LEGENDS[first["mode"]].replace("`", ""),
        "reference": first["mode"] == "reference",
        "accuracy": facts.accuracy_rows(levels),
        "levels": levels,
        "published": any(level.published_curve is not None for level in levels),
        "p_lower_lines": p_lower_lines(summaries),
        "classes": [
            (one.key, f"{radius:g}", facts.per_class(one, classes, radius))
            for one, radius in zip(levels, radii, strict=True)
        ],
        "meanings": [examples.meaning(level, classes, image) for level in levels] if image else [],
        "galleries": [(level.key, examples.gallery(level, classes, image)) for level in levels],
        "copies": examples.COPIES,
        "search": examples.searchable(levels, classes, image),
        "attacks": attacks(levels),
        "cost": facts.cost(levels),
        "provenance": facts.provenance(levels, description),
        "assumptions": facts.assumptions(levels),
        "chart": drawn(levels),
    }


def drawn(levels: list[Level]) -> dict[str, Any]:
    """All charts of the page by name; those per level as lists, those that there is nothing for as None."""
    numbers = iter(range(1, 1000))

    def svg(layers: list[dict[str, Any]], **size: int) -> Markup:
        return Markup(charts.svg(layers, next(numbers), **size))

    ecdf = pd.concat([metrics.p_lower_ecdf(level.table, level.sigma).assign(sigma=level.key) for level in levels])
    trained = any(len(level.epochs) for level in levels)
    attacked = any(level.attacks is not None for level in levels)
    one: Callable[..., Markup] = svg
    return {
        "all": one(charts.all_curves(levels), width=440, height=270),
        "levels": [one(charts.one_curve(level)) for level in levels],
        "radii": [one(charts.radii_histogram(level), height=150) for level in levels],
        "p_lower": one(charts.p_lower_curves(ecdf, levels)) if len(ecdf) else None,
        "loss": one(charts.training_curves(levels, "loss", "training loss")) if trained else None,
        "accuracy": one(charts.training_curves(levels, "noisy_accuracy", "accuracy under noise")) if trained else None,
        "validation": one(charts.training_curves(levels, "val_noisy_accuracy", "accuracy under noise"))
        if any(charts.has_column(level, "val_noisy_accuracy") for level in levels)
        else None,
        "attacks": one(charts.attack_points(levels)) if attacked else None,
    }


def attacks(levels: list[Level]) -> list[dict[str, str]]:
    """Per attacked level how near the attacks came."""
    rows = []
    for level in levels:
        if level.attacks is not None:
            values = attack_report.summarize(level.attacks)
            cells = {key: attack_report.cell(values[key]) for key in ("median_ratio", "largest_ratio", "smallest_gap")}
            numbers = {"images": f"{values['images']:,}", "found": facts.percent(values["found"])}
            rows.append({"sigma": level.key, **numbers, **cells, "contradicted": str(values["contradicted"])})
    return rows
