"""Reads what the report of a run is made of."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from components import params as parameters
from components.certification import table
from components.data import manifest
from components.data.prepared import Description, load_split
from components.evaluation import metrics
from components.evaluation.page.examples import Images
from components.evaluation.page.level import Level, Previous
from components.evaluation.page.previous import previous_of
from components.evaluation.page.render import render
from components.model.card import CARD, load_card
from components.params import Params, level_key
from components.parsing import ParamsError
from components.tools.files import read_json, write_text
from components.tools.hashing import hash_file
from pipelines import artifacts
from pipelines.checkout import committed, last_commit


def load_level(params: Params, sigma: float, description: Description, *, attacks: bool = False) -> Level:
    """One noise level's table, identity, metrics, card, history and provenance.

    Where weights were not trained here, there may be no history; an interrupted copy of a run lacks more. The page then
    says less.

    Args:
        attacks: read what attacks found on this very table, too.
    """
    certificates = table.read(artifacts.certificates(sigma))
    identity = read_json(artifacts.certificates_identity(sigma), "run the certify stage again")
    card = load_card(artifacts.model(sigma)) if (artifacts.model(sigma) / CARD).exists() else None
    method = card.training.get("method") if card else None
    history, provenance = artifacts.history(sigma), artifacts.provenance(sigma)
    acr, curve = published(description.source, method, sigma)
    level = Level(
        key=level_key(sigma),
        table=certificates,
        identity=identity,
        summary=metrics.summarize(certificates, params.evaluate.radii, identity),
        training=card.training if card else {},
        history=read_history(history),
        provenance=read_json(provenance, "run the train stage again") if provenance.exists() else {},
        attacks=read_attacks(sigma) if attacks else None,
        published_acr=acr,
        published_curve=curve,
    )
    return replace(level, previous=previous(params, level))


def previous(params: Params, level: Level) -> Previous | None:
    """What the last commit says of this noise level; None where that is nothing comparable, or of other images.

    Of git, not of MLflow: a stage reads no tracking server, and the metrics are committed."""
    commit = last_commit(Path())
    if commit is None:
        return None
    try:
        then = parameters.parse(yaml.safe_load(committed(artifacts.PARAMS, Path())))
    except (ParamsError, yaml.YAMLError):  # none, or of an older version
        return None
    if (then.prepare, then.seed) != (params.prepare, params.seed):
        return None
    texts = (committed(path, Path()) for path in (artifacts.CURVES, artifacts.METRICS))
    return previous_of(level, commit, *texts)


def read_history(path: Path) -> pd.DataFrame | None:
    """None where there is no file, or no epoch in it."""
    if not path.exists() or not path.read_bytes().strip():
        return None
    return pd.read_csv(path)


def read_attacks(sigma: float) -> pd.DataFrame | None:
    """What attacks found on the table of this noise level; None where there are none, or on another table."""
    path = artifacts.attacks_identity(sigma)
    if not path.exists():
        return None
    identity = read_json(path, "run python -m pipelines.attack again")
    if identity.get("certificates_sha256") != hash_file(artifacts.certificates(sigma)):
        return None
    return pd.read_csv(artifacts.attacks(sigma), sep="\t", dtype={"attacked": float})


def published(source: str, method: str | None, sigma: float) -> tuple[float | None, pd.DataFrame | None]:
    """The published ACR and curve of a data set, a method and a sigma, where there are some."""
    acrs, curves = (pd.read_csv(path) for path in (artifacts.PUBLISHED, artifacts.PUBLISHED_CURVES))
    acr, curve = (
        all_of_it[(all_of_it[["dataset", "method", "sigma"]] == [source, method, sigma]).all(axis=1)]
        for all_of_it in (acrs, curves)
    )
    return (
        float(acr["acr"].iloc[0]) if len(acr) else None,
        curve[["radius", "certified_accuracy"]] if len(curve) else None,
    )


class NoPictures(ValueError):
    """The test images cannot be shown; the message says why."""


def image_reader(params: Params, description: Description, levels: list[Level]) -> Images:
    """Reads a test image by its number.

    Raises:
        NoPictures: there are none that belong to the tables; the reader itself raises it for a file that is missing or
            is not the one that was prepared.
    """
    other = [level.key for level in levels if level.identity.get("images_sha256") != description.test_sha256]
    if other:
        raise NoPictures(f"the test images here are not those of the table at sigma {', '.join(other)}")
    try:
        if (artifacts.TEST_SPLIT / manifest.FILE).exists():
            from components.data.streaming import open_split  # imports torch: only where images stay in files

            pixels = open_split(artifacts.TEST_SPLIT, artifacts.source_root(params.prepare.root)).image
        else:
            pixels = load_split(artifacts.TEST_SPLIT).image
    except ValueError as error:
        raise NoPictures(f"{error}") from None

    def image(index: int) -> np.ndarray:
        try:
            return pixels(index).astype(float) / description.max_value
        except ValueError as error:
            raise NoPictures(f"{error}") from None

    return image


def write_page(params: Params, description: Description, levels: list[Level], path: Path) -> None:
    """Write the page of these levels. Images that cannot be read leave it without pictures, and it says why."""
    name = params.register.name
    try:
        page = render(name, description, levels, image_reader(params, description, levels))
    except NoPictures as reason:
        page = render(name, description, levels, None, f"{reason}")
    write_text(path, page)
