"""Two sets of runs, or tables of others, pair by pair on the images that both have, by the one-class bound."""

import re
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.published.kept import NO_RUNS, holds_runs, load
from components.certification import table
from components.certification.table import IDENTITY, display_radius
from components.evaluation.metrics import certified_accuracy, certified_radii, is_correct, largest_radius_of
from components.evaluation.paired import PairedDifference, paired_acr_difference
from components.evaluation.rebound import rebound
from components.evaluation.report import DASH, text_table
from components.params import level_key
from components.tools.files import read_json
from components.tools.wording import counted
from components.training.objectives import OBJECTIVES

BY = "ACR by the one-class bound, as are all published figures, whatever bound a table was made with."
SIGMA_IN_NAME = re.compile(r"(?:^|[_-])(?:sigma|noise)?[_-]?(\d+\.\d+)(?=$|[_.-])")
TABLES = ("*.tsv", "*.tsv.gz")


def compare(first: Path, second: Path, radii: list[float]) -> str:
    """What differs between their parameters; the one-class ACR of each pair on the images that both have, with the
    paired difference; and certified accuracies.

    Args:
        first: a set of runs, a workspace, a table in the field's form, or a folder of tables METHOD_SIGMA.tsv.
        second: likewise. A table is paired with every run of its noise level, runs with those of their method, too.

    Raises:
        ValueError: a side cannot be read, there is no pair, or a pair shares no images, or not their labels.
    """
    sides = read_side(first), read_side(second)
    refuse_preset_radii([*sides[0], *sides[1]])
    by_level = first.is_file() or second.is_file()
    by_seed = all(len({run["params"].get("seed") for run in side}) > 1 for side in sides)
    pairs = [pair for pair in product(*sides) if fits(*pair, by_level=by_level, by_seed=by_seed)]
    names = [first.resolve().name, second.resolve().name]
    names = names if len(set(names)) == 2 else [str(first), str(second)]
    if not pairs:
        levels = [", ".join(sorted({run["label"] for run in side})) for side in sides]
        raise ValueError(
            f"no pair of one method and noise level to compare: {names[0]} has {levels[0]}; {names[1]} has {levels[1]}"
        )
    shared = [on_shared_images(*pair, names) for pair in pairs]
    header = ["sigma", "method", "images", *names, "difference", "standard error", "paired 95 % interval"]
    rows = [acr_row(*pair) for pair in shared]
    shares = [share_row(name, run, radii) for pair in shared for name, run in zip(names, pair, strict=True)]
    accuracies = text_table(["sigma", "method", "certified accuracy", *(f"r={radius:g}" for radius in radii)], shares)
    before = [*differing_parameters(names, pairs), *left_out(names, pairs, shared)]
    return "\n".join([*before, text_table(header, rows), BY, "", accuracies])


# --- reading ------------------------------------------------------------------------------------------------------


def read_side(path: Path) -> list[dict[str, Any]]:
    """The runs or tables of one side, each with label, method, sigma, params, certificates and largest_radius."""
    if path.is_file():
        return [read_table(path)]
    if holds_runs(path):
        runs = [{str(name): value for name, value in run.items()} for run in load(path).to_dict("records")]
        return [run | {"label": f"{run['method']} at sigma {level_key(run['sigma'])}"} for run in runs]
    found = [read_table(file) for pattern in TABLES for file in sorted(path.glob(pattern))]
    if not found:
        raise ValueError(f"{path} is no table and holds no finished run and no table METHOD_SIGMA.tsv: {NO_RUNS}")
    unnamed = [run["label"] for run in found if run["sigma"] is None]
    if unnamed:
        raise ValueError(f"{path} has a table of no known sigma, {unnamed[0]}: name it METHOD_SIGMA.tsv")
    return found


def read_table(file: Path) -> dict[str, Any]:
    """A table of ours with its identity beside it, or one in the field's form, whose name may tell method and sigma."""
    try:
        certificates = table.read(file)
    except ValueError as error:
        raise ValueError(f"{error}, or fetch the file again") from None
    if not (certificates["correct"] == is_correct(certificates)).all():
        raise ValueError(f"{file} has rows whose `correct` is not predict == label: fetch the file again")
    stem = file.name.removesuffix(".gz").removesuffix(".tsv")
    method = next((name for name in OBJECTIVES if name in stem.split("_")), stem)
    found = SIGMA_IN_NAME.search(stem)
    about: dict[str, Any] = {"sigma": float(found[1]) if found else None, "largest_radius": float("inf")}
    if (file.parent / IDENTITY).exists():
        identity = read_json(file.parent / IDENTITY, "certify again")
        certificates = rebound(certificates, identity, "one_class")
        largest = largest_radius_of(identity | {"bound": "one_class"})
        about = {"sigma": identity["sigma"], "largest_radius": largest, "identity": identity}
    elif "counts" in certificates:
        raise ValueError(f"{file} has no {IDENTITY} beside it, which says the bound of its radii: copy it along")
    level = f" at sigma {level_key(about['sigma'])}" if about["sigma"] else ""
    return about | {"label": f"{method}{level}", "method": method, "params": {}, "certificates": certificates}


def refuse_preset_radii(runs: list[dict[str, Any]]) -> None:
    preset = [run["label"] for run in runs if run.get("identity", {}).get("mode") == "sequential"]
    if preset:
        raise ValueError(f"{preset[0]} has preset radii, and so no ACR to compare: set certify.mode to reference")


# --- pairing ------------------------------------------------------------------------------------------------------


def fits(first: dict[str, Any], second: dict[str, Any], *, by_level: bool, by_seed: bool) -> bool:
    """Whether two runs make a pair: of one noise level where both are known, of one method unless `by_level`, and of
    one seed where both sides have several."""
    levels = {first["sigma"], second["sigma"]} - {None}
    seeds = {run["params"].get("seed") for run in (first, second)} if by_seed else {None}
    return len(levels) < 2 and len(seeds) < 2 and (by_level or first["method"] == second["method"])


def on_shared_images(
    first: dict[str, Any], second: dict[str, Any], names: list[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both runs on the images that both have."""
    one, other = (run["certificates"].set_index("idx", drop=False).rename_axis(None) for run in (first, second))
    common = one.index.intersection(other.index)
    if common.empty:
        raise ValueError(f"{names[0]} and {names[1]} share no image: certify the same ones, see certify.every")
    one, other = one.loc[common], other.loc[common]
    differing = common[(one["label"] != other["label"]).to_numpy()]
    if len(differing):
        labels = [int(rows["label"].loc[differing[0]]) for rows in (one, other)]
        raise ValueError(
            f"{counted(len(differing), 'labels')} of {len(common):,} differ: image {differing[0]} is of class "
            f"{labels[0]} in {names[0]} and {labels[1]} in {names[1]}; these are not the same images"
        )
    return first | {"certificates": one}, second | {"certificates": other}


def left_out(names: list[str], pairs: list[Any], shared: list[Any]) -> list[str]:
    """How many images are compared, where a side has more."""
    lines = []
    for pair, both in zip(pairs, shared, strict=True):
        sizes = [len(run["certificates"]) for run in pair]
        if set(sizes) != {len(both[0]["certificates"])}:
            had = " and ".join(f"{size:,} in {name}" for size, name in zip(sizes, names, strict=True))
            lines.append(f"images: {len(both[0]['certificates']):,} shared, of {had}")
    return list(dict.fromkeys(lines))


def differing_parameters(names: list[str], pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> list[str]:
    """The parameters that are not the same in all pairs of runs, the arithmetic among them; of tables none is known."""
    sides = [
        [
            run["params"] | {"arithmetic": run["arithmetic"], "images": run["identity"].get("images_sha256")}
            for run in pair
        ]
        for pair in pairs
        if all(run["params"] for run in pair)
    ]
    lines = (
        f"{key}: {own.get(key)} in {names[0]}, {other.get(key)} in {names[1]}"
        for own, other in sides
        for key in own | other
        if own.get(key) != other.get(key)
    )
    return list(dict.fromkeys(lines))


# --- rows ---------------------------------------------------------------------------------------------------------


def acr_row(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    one, other = first["certificates"], second["certificates"]
    difference: PairedDifference = paired_acr_difference(one, other)
    sigma = next((run["sigma"] for run in (first, second) if run["sigma"] is not None), None)
    return [
        DASH if sigma is None else level_key(sigma),
        " / ".join(dict.fromkeys(run["method"] for run in (first, second))),
        f"{len(one):,}",
        *(display_radius(float(certified_radii(rows).mean()), 4) for rows in (one, other)),
        f"{difference.mean:+.4f}",
        f"{difference.standard_error:.4f}",
        f"[{difference.low:+.4f}, {difference.high:+.4f}]",
    ]


def share_row(name: str, run: dict[str, Any], radii: list[float]) -> list[str]:
    """Certified accuracy of one side; a dash beyond what its samples can certify."""
    rows, limit = run["certificates"], run["largest_radius"]
    shares = [f"{certified_accuracy(rows, r)['value']:.3f}" if r <= limit else DASH for r in radii]
    return [DASH if run["sigma"] is None else level_key(run["sigma"]), run["method"], name, *shares]
