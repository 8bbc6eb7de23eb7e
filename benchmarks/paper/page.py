"""results/README.md: the runs kept there beside the published figures, with every departure from the recipe."""

from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from benchmarks.paper.runs import FACTS, METRICS, ROOT
from components.certification import table
from components.certification.table import display_radius
from components.evaluation import metrics, plots
from components.evaluation.compare import paired_acr_difference
from components.files import read_json, write_text
from components.params import level_key
from pipelines import artifacts

OURS = "smoothmix"
ABOUT = "about.md"
"""In a set's folder: what its files cannot say, such as where the images come from."""
HEADER = """# Results beside the published ones

Made by `python -m benchmarks.paper page` from the files in this folder. Each row is one training and one certification
by this repository's own stages (`python -m benchmarks.paper run --help`); the published figures are those of n =
100,000, failure_prob 0.001 and all test images.
"""


def write_page(results: Path) -> str:
    """Write the page and its plots; a line that says where."""
    published = pd.read_csv(results / "published.csv")
    sections = [section(folder, published) for folder in sorted(results.iterdir()) if list(folder.glob(f"*/*/{FACTS}"))]
    if not sections:
        raise ValueError(f"{results} holds no finished run: see `python -m benchmarks.paper run --help`")
    write_text(results / "README.md", "\n".join([HEADER, *sections]))
    return f"written: {results / 'README.md'}"


def section(folder: Path, published: pd.DataFrame) -> str:
    """One set of runs: table, departures, circumstances, plot."""
    runs = load(folder)
    dataset = runs["recipe"].iloc[0]
    about = (folder / ABOUT).read_text() if (folder / ABOUT).exists() else ""
    lines = [f"## {folder.name}\n", about, *departures(dataset, runs), ""]
    lines += ["| σ | method | ACR | published | smoothmix's gain, paired 95 % | clean accuracy | abstention |"]
    lines += ["|" + " --- |" * 7]
    for sigma, level in runs.groupby("sigma"):
        for run in level.sort_values("acr", ascending=False).to_dict("records"):
            known = published.query("dataset == @dataset and method == @run['method'] and sigma == @sigma")["acr"]
            theirs = f"{known.iloc[0]:.3f}" if len(known) else "-"
            lines.append(
                f"| {sigma:g} | {run['method']} | {display_radius(run['acr'])} ± {run['acr_standard_error']:.3f} | "
                f"{theirs} | {gain(level, run)} | {run['clean_accuracy']:.3f} | {run['abstention']:.3f} |"
            )
    lines += ["", *rankings(runs, dataset, published), "", circumstances(runs), ""]
    lines += [f"![Certified accuracy over the radius]({draw(folder, runs)})", ""]
    return "\n".join(lines)


def load(folder: Path) -> pd.DataFrame:
    """One row per finished run; `certificates` holds its table."""
    rows = []
    for facts in sorted(folder.glob(f"*/*/{FACTS}")):
        own = facts.parent
        sigma = float(own.name)
        packed = own / artifacts.certificates(sigma).with_name(artifacts.certificates(sigma).name + ".gz")
        rows.append(
            read_json(own / METRICS, "run it again")[level_key(sigma)]
            | read_json(facts, "run it again")
            | {"method": own.parent.name, "certificates": table.read(packed), "params": read_params(own)}
        )
    return pd.DataFrame(rows)


def read_params(run: Path) -> dict[str, Any]:
    """A run's parameters with dotted keys."""
    return flat(yaml.safe_load((run / artifacts.PARAMS).read_text()))


def departures(recipe: str, runs: pd.DataFrame) -> list[str]:
    """Every parameter in which the runs differ from the recipe."""
    published = flat(yaml.safe_load((ROOT / f"recipes/{recipe}.yaml").read_text()))
    differing: dict[str, str] = {}
    for own in runs["params"]:
        for key, value in own.items():
            silent = key.startswith(("noise_levels", "evaluate", "register", "promote")) or key == "train.method"
            if not silent and value != published.get(key):
                differing[key] = f"`{key}` {value} instead of {published.get(key)}"
    return [f"Departures from recipes/{recipe}.yaml: " + (", ".join(differing.values()) or "none") + "."]


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as one mapping with dotted keys."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return leaves


def gain(level: pd.DataFrame, run: dict[Any, Any]) -> str:
    """SmoothMix's ACR minus the run's on the same images."""
    ours = level[level["method"] == OURS]["certificates"]
    if run["method"] == OURS or ours.empty:
        return ""
    difference = paired_acr_difference(run["certificates"], ours.iloc[0])
    return f"{difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"


def rankings(runs: pd.DataFrame, dataset: str, published: pd.DataFrame) -> list[str]:
    """The order of the methods, here and as published."""
    lines = []
    for sigma, level in runs.groupby("sigma"):
        theirs = published.query("dataset == @dataset and sigma == @sigma and method in @level['method'].values")
        if len(theirs) > 1:
            both = level.merge(theirs[["method", "acr"]], on="method", suffixes=("", "_published"))
            order = " > ".join(both.sort_values("acr", ascending=False)["method"])
            known = " > ".join(both.sort_values("acr_published", ascending=False)["method"])
            agreement = both["acr"].corr(both["acr_published"], method="spearman")
            lines.append(f"- σ {sigma:g}: here {order}; published {known} (rank correlation {agreement:.2f})")
    return lines


def circumstances(runs: pd.DataFrame) -> str:
    seconds = pd.DataFrame(runs["seconds"].tolist()).sum()
    machines = sorted(
        {f"{gpu if gpu != 'none' else cpu}" for gpu, cpu in zip(runs["gpu"], runs["processor"], strict=True)}
    )
    commits = sorted({commit[:10] for commit in runs["git_commit"]})
    rate = runs["certified_samples_per_s"].median()
    return (
        f"{len(runs)} runs of {numbers(runs['params'].str['train.epochs'])} epochs, {numbers(runs['images'])} test images, "
        f"n = {numbers(runs['n'])}; training {seconds['train'] / 3600:.2f} h, certification "
        f"{seconds['certify'] / 3600:.2f} h at a median of {rate:,.0f} samples/s, start-up included, on "
        f"{', '.join(machines)}; torch {', '.join(sorted(set(runs['torch'])))}; commit {', '.join(commits)}."
    )


def numbers(values: pd.Series) -> str:
    """The different values of a column."""
    return ", ".join(f"{value:,}" for value in sorted(set(values)))


def draw(folder: Path, runs: pd.DataFrame) -> str:
    """Certified accuracy over the radius, one panel per sigma; the name of the picture."""
    curves = pd.concat(
        metrics.curve(run["certificates"], run["sigma"]).assign(method=run["method"]) for run in runs.to_dict("records")
    )
    axes = {
        "x": {"field": "radius", "type": "quantitative", "title": "L2 radius"},
        "y": {"field": "certified_accuracy", "type": "quantitative", "title": "Certified accuracy"},
        "color": {"field": "method", "type": "nominal"},
    }
    panel = {"width": 300, "height": 240, "mark": {"type": "line", "interpolate": "step-before"}, "encoding": axes}
    spec = {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "data": {"values": curves.to_dict("records")},
        "facet": {"column": {"field": "sigma", "type": "nominal", "title": "σ"}},
        "spec": panel,
    }
    picture = folder / "certified_accuracy.png"
    plots.render_png(spec, picture)
    return f"{folder.name}/{picture.name}"
