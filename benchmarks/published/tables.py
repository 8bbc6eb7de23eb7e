"""Runs beside the published figures as a table for a paper: LaTeX, CSV or Markdown."""

import math
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from benchmarks.published.kept import load_by_name
from benchmarks.published.page import TRAINING_IMAGES, departures, departures_of, settings
from benchmarks.published.seeds import has_seeds
from components.certification.table import display_radius
from components.evaluation.report import DASH
from components.params import level_key
from pipelines.report_files import published

Format = Literal["latex", "csv", "markdown"]
PUBLISHED_N, PUBLISHED_FAILURE_PROB = 100_000, 0.001
TEST_IMAGES = {"mnist": 10_000, "cifar10": 10_000}
"""On how many images the published figures are."""
CAPTION = "Certified accuracy at L2 radii, and average certified radius (ACR, with its standard error), on {name}."
BY = "All by the one-class bound but the two-class ACR, which is from the same samples."
PUBLISHED = "Published: n = 100,000, failure_prob 0.001, trained on all images, certified on all test images."
BEYOND = f"{DASH}: not published, not measured, or beyond what n samples can certify for any model."
SIGNS = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
SIGNS |= {sign: f"\\{sign}" for sign in "&%$#_{}"}
SIGNS |= {"σ": r"$\sigma$", "±": r"$\pm$", DASH: "--", "<": r"$<$", ">": r"$>$", "|": r"$|$", '"': "''"}


def table(folders: list[Path], form: Format, radii: list[float]) -> str:
    """The runs of sets and workspaces, each with the published figures of its method and noise level, if there are any.

    Raises:
        ValueError: see `load_by_name`.
    """
    sets = load_by_name(folders, radii)
    found = {name: entries(runs, radii) for name, runs in sets.items()}
    if form == "csv":
        rows = pd.DataFrame([row for name in sets for entry in found[name] for row in tidy(name, entry)])
        whole = dict.fromkeys(("n", "images", "train_images", "epochs", "seed"), "Int64")
        return rows.astype(whole).to_csv(index=False).rstrip("\n")
    draw = latex if form == "latex" else markdown
    return "\n\n".join(draw(name, found[name], notes(runs, found[name])) for name, runs in sets.items())


def entries(runs: pd.DataFrame, radii: list[float]) -> list[dict[str, Any]]:
    """Our runs by noise level and ACR, each followed by what is published of its data set, method and noise level."""
    order = [name for name in ("sigma", "acr") if name in runs]
    found: list[dict[str, Any]] = []
    for run in runs.sort_values(order, ascending=[True, False][: len(order)]).to_dict("records"):
        keys = {"dataset": run["params"]["prepare.source"], "method": run["method"], "sigma": run["sigma"]}
        own = {str(name): value for name, value in run.items()} | keys
        found.append(own | {"source": "ours", "one_of_seeds": has_seeds(runs)})
        acr, points = published(*keys.values())
        if acr is not None:
            found.append(keys | {"source": "published", "acr": acr} | published_facts(keys["dataset"], points))
    for entry in found:
        entry["shares"] = {radius: accuracy(entry, radius) for radius in radii}
    shown = [radius for radius in radii if any(entry["shares"][radius] for entry in found)]
    return [entry | {"shares": {radius: entry["shares"][radius] for radius in shown}} for entry in found]


def published_facts(dataset: str, points: pd.DataFrame | None) -> dict[str, Any]:
    """What published figures of a data set rest on, and certified accuracies at the radii that were published."""
    pairs = [] if points is None else points.itertuples(index=False, name=None)
    facts: dict[str, Any] = {"n": PUBLISHED_N, "failure_prob": PUBLISHED_FAILURE_PROB, "largest_radius": math.inf}
    facts |= {"images": TEST_IMAGES.get(dataset), "train_images": TRAINING_IMAGES.get(dataset)}
    return facts | {"certified_accuracy": {str(radius): {"value": share} for radius, share in pairs}}


def accuracy(entry: dict[str, Any], radius: float) -> dict[str, float] | None:
    """Certified accuracy at a radius; None where it is not known, or beyond what n samples can certify."""
    one: dict[str, float] | None = entry["certified_accuracy"].get(str(radius))
    return one if radius <= entry["largest_radius"] else None


# --- one observation per row --------------------------------------------------------------------------------------


def tidy(name: str, entry: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per figure of an entry, in full precision, each with what it rests on."""
    params = entry.get("params", {})
    about = {"set": name} | {key: entry[key] for key in ("dataset", "method", "sigma", "source")}
    rests_on = {key: entry.get(key) for key in ("n", "failure_prob", "images", "train_images")}
    rests_on |= {"epochs": params.get("train.epochs"), "seed": params.get("seed"), "departures": None}
    if params:
        rests_on["departures"] = "; ".join(departures_of(entry["recipe"], entry).values()).replace("`", "")
    error = entry.get("acr_standard_error")
    figures: list[dict[str, Any]] = [
        {"quantity": "acr", "bound": "one_class", "value": entry.get("acr"), "standard_error": error},
        {"quantity": "acr", "bound": "two_class", "value": entry.get("acr_two_class")},
        {"quantity": "abstention", "bound": "one_class", "value": entry.get("abstention")},
    ]
    named = {"quantity": "certified_accuracy", "bound": "one_class"}
    figures += [named | {"radius": radius} | share for radius, share in entry["shares"].items() if share]
    columns = ["quantity", "bound", "radius", "value", "standard_error", "low", "high"]
    figures = [figure for figure in figures if not pd.isna(figure["value"])]
    return [about | {column: figure.get(column) for column in columns} | rests_on for figure in figures]


# --- for readers --------------------------------------------------------------------------------------------------


def cells(entry: dict[str, Any]) -> list[str]:
    acr, error, other = (entry.get(name, math.nan) for name in ("acr", "acr_standard_error", "acr_two_class"))
    seed = f", seed {entry['params']['seed']}" if entry.get("one_of_seeds") else ""
    shown = [level_key(entry["sigma"]), entry["method"] + seed, entry["source"]]
    if entry["source"] == "published":
        shown += [f"{acr:.3f}", DASH]  # as it was published: not ours to round down
    else:
        shown += [DASH if pd.isna(value) else display_radius(value) for value in (acr, other)]
        shown[3] += "" if pd.isna(error) else f" ± {error:.3f}"
    return shown + [f"{share['value']:.3f}" if share else DASH for share in entry["shares"].values()]


def notes(runs: pd.DataFrame, found: list[dict[str, Any]]) -> list[str]:
    """What the figures rest on, one sentence each."""
    said = [f"Ours: {settings(runs)}.", departures(runs["recipe"].iloc[0], runs), BY]
    said += [PUBLISHED] if any(entry["source"] == "published" for entry in found) else []
    return said + ([BEYOND] if any(DASH in cells(entry) for entry in found) else [])


def markdown(name: str, found: list[dict[str, Any]], said: list[str]) -> str:
    header = ["σ", "method", "source", "ACR, one-class", "ACR, two-class", *(f"r = {r:g}" for r in found[0]["shares"])]
    rows = [header, *map(cells, found)]
    widths = [max(3, *(len(row[i]) for row in rows)) for i in range(len(header))]
    lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows]
    rule = "|" + "|".join(" " + "-" * width + " " for width in widths) + "|"
    return "\n".join([CAPTION.format(name=name), "", lines[0], rule, *lines[1:], "", *(f"- {note}" for note in said)])


def latex(name: str, found: list[dict[str, Any]], said: list[str]) -> str:
    """A table environment that compiles with \\usepackage{booktabs}; a published row lies below that of its method."""
    radii = [f"{radius:g}" for radius in found[0]["shares"]]
    rows = []
    for i, entry in enumerate(found):
        rows += [r"\addlinespace"] if i and entry["sigma"] != found[i - 1]["sigma"] else []
        sigma, method, source, *figures = map(escaped, cells(entry))
        rows += [" & ".join([sigma, method if source == "ours" else r"\quad published", *figures]) + r" \\"]
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}[tb]",
        r"\centering",
        rf"\caption{{{escaped(CAPTION.format(name=name)).replace('L2', '$L_2$')}}}",
        rf"\label{{tab:certified-{''.join(c if c.isalnum() else '-' for c in name)}}}",
        r"\footnotesize",
        r"\setlength{\tabcolsep}{4pt}",
        rf"\begin{{tabular}}{{llll{'r' * len(radii)}}}",
        r"\toprule",
        rf" & & \multicolumn{{2}}{{c}}{{ACR}} & \multicolumn{{{len(radii)}}}{{c}}{{Certified accuracy at radius}} \\",
        rf"\cmidrule(lr){{3-4}} \cmidrule(l){{5-{4 + len(radii)}}}",
        " & ".join([r"$\sigma$", "Method", "one-class", "two-class", *radii]) + r" \\",
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}",
        "",
        r"\smallskip",
        r"\parbox{\linewidth}{\raggedright " + " ".join(map(noted, said)) + "}",
        r"\end{table}",
    ]
    return "\n".join(lines)


def noted(text: str) -> str:
    """A sentence whose code, between backticks, is set as such."""
    parts = map(escaped, text.split("`"))
    return "".join(part if i % 2 == 0 else rf"\texttt{{{part}}}" for i, part in enumerate(parts))


def escaped(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return "".join(SIGNS.get(sign, sign) for sign in text)
