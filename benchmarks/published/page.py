"""results/README.md: the runs kept there beside the published figures, every departure, and what is still to be run."""

from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from benchmarks.published.runs import FACTS, METRICS, ROOT
from components.certification import table
from components.certification.table import display_radius
from components.evaluation import metrics, plots
from components.evaluation.paired import paired_acr_difference
from components.params import level_key
from components.tools.files import read_json, write_text
from components.training.objectives import OBJECTIVES
from pipelines import artifacts

OURS = "smoothmix"
ABOUT = "about.md"
"""In a set's folder: what its files cannot say, such as where the images come from."""
HEADER = """# Results beside the published ones

Made by `python -m benchmarks.published page` from the files in this folder. Each row is one training and one
certification by this repository's own stages (`python -m benchmarks.published run --help`); the published figures are
those of n = 100,000, failure_prob 0.001 and all test images.
"""
COST = "imagenet_cost.jsonl"
COST_HEADER = """## What ImageNet would cost

ResNet-50 by `recipes/imagenet.yaml`, in hours of the machine named here, from throughputs that
`python -m benchmarks.imagenet --out results/imagenet_cost.jsonl` measured on it; on a GPU it gives GPU-hours.
"""


def write_page(results: Path) -> str:
    """Write the page and its plots; a line that says where."""
    sets = {folder: load(folder) for folder in sorted(results.iterdir()) if list(folder.glob(f"*/*/{FACTS}"))}
    if not sets:
        raise ValueError(f"{results} holds no finished run: see `python -m benchmarks.published run --help`")
    published, curves = (pd.read_csv(results / f"{name}.csv") for name in ("published", "published_curves"))
    sections = [section(folder, runs, published, curves) for folder, runs in sets.items()]
    sections += [not_yet_run(pd.concat(sets.values()), published), *cost(results / COST)]
    write_text(results / "README.md", "\n".join([HEADER, *sections]))
    return f"written: {results / 'README.md'}"


def section(folder: Path, runs: pd.DataFrame, published: pd.DataFrame, curves: pd.DataFrame) -> str:
    """One set of runs: table, departures, circumstances, plot."""
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
    lines += [f"![Certified accuracy over the radius]({draw(folder, runs, curves.query('dataset == @dataset'))})", ""]
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
    differing: dict[str, str] = {}
    for own in runs["params"]:
        differing |= differences(recipe, own)
    return [f"Departures from recipes/{recipe}.yaml: " + (", ".join(differing.values()) or "none") + "."]


def differences(recipe: str, own: dict[str, Any]) -> dict[str, str]:
    """What differs from the recipe in one run, by parameter, for people."""
    published = flat(yaml.safe_load((ROOT / f"recipes/{recipe}.yaml").read_text()))
    silent = ("noise_levels", "validate", "evaluate", "register", "promote", "train.method")
    differing = {key: value for key, value in own.items() if value != published.get(key) and not key.startswith(silent)}
    return {key: f"`{key}` {value} instead of {published.get(key)}" for key, value in differing.items()}


def not_yet_run(runs: pd.DataFrame, published: pd.DataFrame) -> str:
    """The published figures beside which no run by the whole recipe stands."""
    whole = [not differences(*run) for run in zip(runs["recipe"], runs["params"], strict=True)]
    done = set(runs[whole][["recipe", "method", "sigma"]].itertuples(index=False, name=None))
    known = published[["dataset", "method", "sigma"]].itertuples(index=False, name=None)
    missing = [row for row in known if row not in done and row[1] in OBJECTIVES]
    lines = ["## Not yet run by the whole recipe\n"]
    for dataset in dict.fromkeys(row[0] for row in missing):
        own = [row for row in missing if row[0] == dataset]
        levels = {method: [f"{row[2]:g}" for row in own if row[1] == method] for method in OBJECTIVES}
        lines.append(f"- {dataset}: " + "; ".join(f"{name} at σ {', '.join(at)}" for name, at in levels.items() if at))
    return "\n".join([*lines, ""])


def cost(file: Path) -> list[str]:
    """What `benchmarks.imagenet` kept, where it did."""
    if not file.exists():
        return []
    measured = pd.read_json(file, lines=True)
    rate = measured["images_per_s"].fillna(measured["samples_per_s"])
    rows = zip(measured["measured"], rate, measured["hours"], strict=True)
    facts = measured.iloc[0]
    machine = facts["gpu"] if facts["gpu"] != "none" else f"{facts['processor']}, {facts['cores']} cores"
    lines = [
        COST_HEADER,
        f"{machine}; {facts['precision']}; torch {facts['torch']}; commit {facts['git_commit'][:10]}.\n",
    ]
    lines += ["| measured | per second | hours |", "| --- | --- | --- |"]
    lines += [f"| {what} | {per_s:,.1f} | {'' if pd.isna(hours) else f'{hours:,.0f}'} |" for what, per_s, hours in rows]
    return ["\n".join([*lines, ""])]


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
    epochs, seeds = (pd.Series([own[key] for own in runs["params"]]) for key in ("train.epochs", "seed"))
    return (
        f"{len(runs)} runs of {numbers(epochs)} epochs, seed {numbers(seeds)}, {numbers(runs['images'])} test images, "
        f"n = {numbers(runs['n'])}; training {seconds['train'] / 3600:.2f} h, certification "
        f"{seconds['certify'] / 3600:.2f} h at a median of {rate:,.0f} samples/s, start-up included, on "
        f"{', '.join(machines)}; torch {', '.join(sorted(set(runs['torch'])))}; commit {', '.join(commits)}."
    )


def numbers(values: pd.Series) -> str:
    """The different values of a column."""
    return ", ".join(f"{value:,}" for value in sorted(set(values)))


def draw(folder: Path, runs: pd.DataFrame, published: pd.DataFrame) -> str:
    """Certified accuracy over the radius, one panel per sigma, with the published points; the name of the picture."""
    ours = pd.concat(
        metrics.curve(run["certificates"], run["sigma"]).assign(method=run["method"]) for run in runs.to_dict("records")
    )
    points = published[published["sigma"].isin(runs["sigma"])]
    values = pd.concat([ours.assign(published=False), points.assign(published=True)])
    axes = {
        "x": {"field": "radius", "type": "quantitative", "title": "L2 radius"},
        "y": {"field": "certified_accuracy", "type": "quantitative", "title": "Certified accuracy"},
        "color": {"field": "method", "type": "nominal", "title": "method (points: published)"},
    }
    marks = [({"type": "line", "interpolate": "step-before"}, "!datum.published"), ("point", "datum.published")]
    layers = [{"mark": mark, "transform": [{"filter": which}], "encoding": axes} for mark, which in marks]
    spec = {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "data": {"values": values[["sigma", "radius", "certified_accuracy", "method", "published"]].to_dict("records")},
        "facet": {"column": {"field": "sigma", "type": "nominal", "title": "σ"}},
        "spec": {"width": 300, "height": 240, "layer": layers},
    }
    picture = folder / "certified_accuracy.png"
    plots.render_png(spec, picture)
    return f"{folder.name}/{picture.name}"
