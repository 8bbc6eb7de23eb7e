"""results/README.md: the runs kept there beside the published figures, every departure, and what is still to be run."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from benchmarks.published.figures import panels
from benchmarks.published.kept import NO_RUNS, finished_runs, load, params_at, recipe_file
from benchmarks.published.seeds import has_seeds, over_seeds
from components import params as parameters
from components.certification.table import display_radius
from components.evaluation import plots
from components.evaluation.page.facts import duration
from components.evaluation.paired import PairedDifference, paired_acr_difference
from components.tools.files import write_text
from components.tools.hashing import hash_value
from components.tools.wording import counted
from components.training.objectives import OBJECTIVES
from pipelines import artifacts
from pipelines.report_files import published as published_at

OURS = "smoothmix"
TRAINING_IMAGES = {"mnist": 60_000, "cifar10": 50_000, "imagenet": 1_281_167}
"""Size of the published training sets; the published figures are from training on all images."""
DRAWN_FROM = "drawn_from"
"""Text chunk of a picture: the hash of what it shows."""
COST_COLUMNS = ["training", "images/s"]
ABOUT = "about.md"
"""File in a set's folder with facts that its other files lack, for example where the images come from."""
HEADER = """# Results beside the published ones

Made by `python -m benchmarks.published page` from the files in this folder. Each row is one training and one
certification by this repository's own stages (`python -m benchmarks.published run --help`), or the mean over several
seeds, with its deviation over them; the published figures are those of n = 100,000, failure_prob 0.001 and all test
images. All columns but "ACR, two-class" and all curves are by the
one-class bound, as are all published figures, whatever bound a table was made with: its counts give both.
"""
CAPTION = """Bands are 95 % intervals, over the choice of test images. No curve goes past its dashed vertical line:
larger radii are beyond what n samples can certify for any model."""
COST = "imagenet_cost.jsonl"
COST_HEADER = """## What ImageNet would cost

ResNet-50 by `recipes/imagenet.yaml`, in hours of the machine named here, from throughputs that
`python -m benchmarks.imagenet --out results/imagenet_cost.jsonl` measured on it; on a GPU it gives GPU-hours.
"""


def write_page(results: Path) -> str:
    """Write the page and its plots; return a line that names the page."""
    sets = {folder: load(folder) for folder in sorted(results.iterdir()) if finished_runs(folder)}
    if not sets:
        raise ValueError(f"{results} holds no finished run: {NO_RUNS}")
    published, curves = (pd.read_csv(path) for path in (artifacts.PUBLISHED, artifacts.PUBLISHED_CURVES))
    sections = [section(folder, runs, published, curves) for folder, runs in sets.items()]
    sections += [not_yet_run(pd.concat(sets.values()), published), *cost(results / COST)]
    write_text(results / "README.md", "\n".join([HEADER, *sections]))
    return f"written: {results / 'README.md'}"


def section(folder: Path, runs: pd.DataFrame, published: pd.DataFrame, curves: pd.DataFrame) -> str:
    """One set of runs: table, departures, circumstances, plot."""
    recipe, dataset = runs["recipe"].iloc[0], runs["params"].iloc[0]["prepare.source"]
    about = (folder / ABOUT).read_text(encoding="utf-8") if (folder / ABOUT).exists() else ""
    lines = [f"## {folder.name}\n", about, departures(recipe, runs), ""]
    header, rows = seeds_rows(runs, dataset) if has_seeds(runs) else run_rows(runs, dataset)
    lines += ["| " + " | ".join(cells) + " |" for cells in (header, ["---"] * len(header), *rows)]
    lines += ["", *rankings(runs, dataset, published), "", circumstances(runs), ""]
    picture = draw(folder, runs, curves.query("dataset == @dataset"))
    lines += [f"![Certified accuracy over the radius]({picture})\n", f"{CAPTION}\n"]
    return "\n".join(lines)


def run_rows(runs: pd.DataFrame, dataset: str) -> tuple[list[str], list[list[str]]]:
    """The header, and one row per run."""
    header = ["σ", "method", "images trained on", "ACR, one-class", "published", "smoothmix's gain, paired 95 %"]
    header += ["clean accuracy", "abstention", "ACR, two-class", *COST_COLUMNS]
    rows = []
    for sigma, level in runs.groupby("sigma"):
        for run in level.sort_values("acr", ascending=False).to_dict("records"):
            cells = [f"{sigma:g}", run["method"], trained_on(run)]
            cells += [f"{display_radius(run['acr'])} ± {run['acr_standard_error']:.3f}"]
            cells += [published_acr(dataset, run), gain(level, run)]
            cells += [f"{run['clean_accuracy']:.3f}", f"{run['abstention']:.3f}", display_radius(run["acr_two_class"])]
            rows.append(cells + training_cost([run]))
    return header, rows


def seeds_rows(runs: pd.DataFrame, dataset: str) -> tuple[list[str], list[list[str]]]:
    """The header, and one row per method and noise level."""
    header = ["σ", "method", "seeds", "ACR, one-class", "published"]
    header += ["smoothmix's gain, paired over seeds and images, 95 %", "clean accuracy", "abstention", "ACR, two-class"]
    header += COST_COLUMNS
    rows = []
    for row in over_seeds(runs, OURS).to_dict("records"):
        cells = [f"{row['sigma']:g}", row["method"], f"{row['seeds']}", mean_cell(row, "acr")]
        cells += [published_acr(dataset, row), gain_cell(row["gain"])]
        cells += [mean_cell(row, name) for name in ("clean_accuracy", "abstention", "acr_two_class")]
        own = runs[(runs["sigma"] == row["sigma"]) & (runs["method"] == row["method"])]
        rows.append(cells + training_cost(own.to_dict("records")))
    return header, rows


def training_cost(runs: list[dict[Any, Any]]) -> list[str]:
    """How long a training took, the mean over runs, and how many images it saw per second."""
    seconds = sum(run["seconds"]["train"] for run in runs)
    known = all(map(known_images, runs))
    images = sum(run["train_images"] * run["params"]["train.epochs"] for run in runs) if known else 0
    return [duration(seconds / len(runs)), f"{images / seconds:,.0f}" if known else "?"]


def mean_cell(row: dict[Any, Any], name: str) -> str:
    """A mean with its deviation over seeds; rounded to the nearest, as it is no certificate."""
    deviation = row[f"{name}_deviation"]
    return f"{row[name]:.3f}" + ("" if pd.isna(deviation) else f" ± {deviation:.3f}")


def published_acr(dataset: str, run: dict[Any, Any]) -> str:
    known, _ = published_at(dataset, run["method"], run["sigma"])
    return "-" if known is None else f"{known:.3f}"


def trained_on(run: dict[Any, Any]) -> str:
    """The number of training images of a run; ? if the run did not record it."""
    return f"{run['train_images']:,.0f}" if known_images(run) else "?"


def known_images(run: dict[Any, Any]) -> bool:
    return not pd.isna(run.get("train_images"))


def departures(recipe: str, runs: pd.DataFrame) -> str:
    """The parameters in which the runs differ from the recipe, and a smaller training set than the data set's."""
    if not recipe_file(recipe).exists():
        return f"Departures: there is no recipe named {recipe} to depart from."
    methods: dict[str, set[str]] = {}
    for run in runs.to_dict("records"):
        for key, said in departures_of(recipe, run).items():
            if key != "seed" or not has_seeds(runs):  # the seeds of several are no departure
                methods.setdefault(said, set()).add(run["method"])
    everywhere = set(runs["method"])
    of = {said: "" if own == everywhere else f" ({', '.join(sorted(own))})" for said, own in methods.items()}
    return f"Departures from recipes/{recipe}.yaml: " + (", ".join(map("".join, of.items())) or "none") + "."


def departures_of(recipe: str, run: dict[Any, Any]) -> dict[str, str]:
    """What differs from the recipe in one run, by parameter, for people."""
    own = run["params"]
    images = TRAINING_IMAGES.get(own["prepare.source"])
    whole = parameters.load(recipe_file(recipe))
    whole = replace(whole, train=replace(whole.train, method=own["train.method"]))  # levels differ by method
    published = params_at(whole, run["sigma"])
    silent = ("validate", "evaluate", "register", "promote", "train.method")
    differing = {key: value for key, value in own.items() if value != published.get(key) and not key.startswith(silent)}
    said = {key: f"`{key}` {value} instead of {published.get(key)}" for key, value in differing.items()}
    if images and known_images(run) and run["train_images"] != images:
        said["train_images"] = f"{trained_on(run)} training images instead of {images:,}"
    return said


def not_yet_run(runs: pd.DataFrame, published: pd.DataFrame) -> str:
    """The published figures for which no run by the whole recipe exists yet."""
    whole = [not departures_of(run["recipe"], run) for run in runs.to_dict("records")]
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
    """The figures that `benchmarks.imagenet` kept, if it did."""
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


def gain(level: pd.DataFrame, run: dict[Any, Any]) -> str:
    """SmoothMix's ACR minus the run's on the same images."""
    ours = level[level["method"] == OURS]["certificates"]
    if run["method"] == OURS or ours.empty:
        return ""
    return gain_cell(paired_acr_difference(run["certificates"], ours.iloc[0]))


def gain_cell(difference: PairedDifference | None) -> str:
    if difference is None:
        return ""
    return f"{difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"


def rankings(runs: pd.DataFrame, dataset: str, published: pd.DataFrame) -> list[str]:
    """The order of the methods, here and as published."""
    lines = []
    for sigma, level in runs.groupby("sigma"):
        theirs = published.query("dataset == @dataset and sigma == @sigma and method in @level['method'].values")
        if len(theirs) > 1:
            ours = level.groupby("method", as_index=False)["acr"].mean()
            both = ours.merge(theirs[["method", "acr"]], on="method", suffixes=("", "_published"))
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
        f"{settings(runs)}; training {seconds['train'] / 3600:.2f} h, certification "
        f"{seconds['certify'] / 3600:.2f} h at a median of {rate:,.0f} samples/s, start-up included, on "
        f"{', '.join(machines)}; torch {', '.join(sorted(set(runs['torch'])))}; commit {', '.join(commits)}."
    )


def settings(runs: pd.DataFrame) -> str:
    """What figures of these runs rest on."""
    arithmetics = ", ".join(sorted(set(runs["arithmetic"])))
    epochs, seeds = (pd.Series([own[key] for own in runs["params"]]) for key in ("train.epochs", "seed"))
    return (
        f"{counted(len(runs), 'runs')} of {numbers(epochs)} {'epochs' if max(epochs) > 1 else 'epoch'}, "
        f"seed {numbers(seeds)}, {numbers(runs['images'])} test images, n = {numbers(runs['n'])}, "
        f"{arithmetics} arithmetic"
    )


def numbers(values: pd.Series) -> str:
    """The different values of a column."""
    return ", ".join(f"{value:,}" for value in sorted(set(values)))


def draw(folder: Path, runs: pd.DataFrame, published: pd.DataFrame) -> str:
    """The name of the set's picture, which is redrawn only if its contents have changed."""
    spec, picture = panels(runs, published), folder / "certified_accuracy.png"
    content = hash_value(spec)
    if not picture.exists() or drawn_from(picture) != content:
        plots.render_png(spec, picture)
        note = PngInfo()
        note.add_text(DRAWN_FROM, content)
        with Image.open(picture) as image:
            image.load()
            image.save(picture, pnginfo=note)
    return f"{folder.name}/{picture.name}"


def drawn_from(picture: Path) -> str | None:
    with Image.open(picture) as image:
        return image.info.get(DRAWN_FROM)
