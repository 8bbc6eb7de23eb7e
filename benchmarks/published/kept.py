"""Reads runs that are kept: sets of them and workspaces, always by the one-class bound."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.published.runs import FACTS, SEED
from benchmarks.workspace import ROOT
from components import params as parameters
from components.certification import table
from components.data.prepared import load_description
from components.evaluation import metrics
from components.evaluation.rebound import rebound
from components.model.card import CARD, load_card
from components.params import Params
from components.tools.files import read_json
from pipelines import artifacts

NO_RUNS = "see `python -m benchmarks.published run --help`"


def load(folder: Path, radii: list[float] | None = None) -> pd.DataFrame:
    """One row per run of a set, or per noise level of a workspace; `certificates` holds its table.

    Args:
        radii: at which certified accuracy is wanted.

    Raises:
        ValueError: there is no finished run, or a file of one cannot be read.
    """
    finished = finished_runs(folder)
    if finished:
        return pd.DataFrame([finished_run(own, radii or []) for own in finished])
    certified = sigmas_certified(folder)
    if not certified:
        raise ValueError(f"{folder} holds no finished run and no table of certificates: {NO_RUNS}")
    params = parameters.load(folder / artifacts.PARAMS)
    return pd.DataFrame([workspace_run(folder, params, sigma, radii or []) for sigma in certified])


def load_by_name(folders: list[Path], radii: list[float] | None = None) -> dict[str, pd.DataFrame]:
    """Several sets or workspaces by the names of their folders.

    Raises:
        ValueError: two have one name; see also `load`.
    """
    names = [folder.resolve().name for folder in folders]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"two sets are named {twice[0]}, as their folders are: name them one after the other")
    return {name: load(folder, radii) for name, folder in zip(names, folders, strict=True)}


def holds_runs(folder: Path) -> bool:
    """Whether this is a set or a workspace that `load` can read."""
    return bool(finished_runs(folder) or sigmas_certified(folder))


def finished_runs(folder: Path) -> list[Path]:
    places = (f"*/*/{FACTS}", f"{SEED}*/*/*/{FACTS}")
    return [facts.parent for place in places for facts in sorted(folder.glob(place))]


def sigmas_certified(workspace: Path) -> list[float]:
    """The noise levels in its params.yaml that have a table."""
    if not (workspace / artifacts.PARAMS).exists():
        return []
    return [
        sigma for sigma in parameters.load(workspace / artifacts.PARAMS).sigmas if table_of(workspace, sigma).exists()
    ]


def table_of(own: Path, sigma: float) -> Path:
    """The table of a workspace at a noise level: compressed where the run is kept."""
    path = own / artifacts.certificates(sigma)
    return path if path.exists() else path.with_name(path.name + ".gz")


def finished_run(own: Path, radii: list[float]) -> dict[str, Any]:
    """A run of a set, with its circumstances."""
    params = parameters.load(own / artifacts.PARAMS)
    (sigma,) = params.sigmas
    known = read_json(own / FACTS, "run it again") | {"method": own.parent.name, "params": params_at(params, sigma)}
    return one_class(own, sigma, radii) | known


def workspace_run(own: Path, params: Params, sigma: float, radii: list[float]) -> dict[str, Any]:
    """A noise level of a workspace. Its parameters of the training are those on the card, because params.yaml may have
    been edited since."""
    card = load_card(own / artifacts.model(sigma)) if (own / artifacts.model(sigma) / CARD).exists() else None
    run = one_class(own, sigma, radii)
    used = params_at(params, sigma)
    taken = ("weights", "device")  # by content, and as it was taken: not what the parameters say
    trained = {f"train.{name}": value for name, value in (card.training if card else {}).items() if name not in taken}
    used |= {name: value for name, value in trained.items() if name in used}
    used |= {f"certify.{name}": run[name] for name in ("mode", "n", "failure_prob")}
    known = {"recipe": params.prepare.source, "method": used["train.method"], "params": used}
    if (own / artifacts.DESCRIPTION).exists():
        known["train_images"] = load_description(own / artifacts.DESCRIPTION).train_images
    return run | known


def one_class(own: Path, sigma: float, radii: list[float]) -> dict[str, Any]:
    """Metrics and table of a run by the one-class bound, whatever bound the table was made with."""
    identity = read_json(own / artifacts.certificates_identity(sigma), "run it again")
    certificates = rebound(table.read(table_of(own, sigma)), identity, "one_class")
    identity |= {"bound": "one_class"}
    return metrics.summarize(certificates, radii, identity) | {"certificates": certificates, "identity": identity}


def recipe_file(recipe: str) -> Path:
    """A recipe of this project by its name; there may be none."""
    return ROOT / f"recipes/{recipe}.yaml"


def params_at(params: Params, sigma: float) -> dict[str, Any]:
    """The parameters of one noise level with dotted keys; those of all levels where it is none of theirs. Without those
    of other methods, and without the bound: the counts are the same, and give both."""
    train = params.train_at(sigma) if sigma in params.sigmas else params.train
    at = flat(asdict(params) | {"train": train.facts, "noise_levels": {}})
    del at["certify.bound"]
    return at


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as one mapping with dotted keys."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return leaves
