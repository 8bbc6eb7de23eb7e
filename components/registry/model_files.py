"""Weights and card of registered versions, as files that are checked against what was registered. Imports no torch."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from components.model.card import CARD, WEIGHTS, ModelCard, load_card
from components.tools.files import replaced
from components.tools.hashing import hash_file

WEIGHTS_SHA256 = "weights_sha256"
REGISTERED_HASHES = {WEIGHTS_SHA256: WEIGHTS, "card_sha256": CARD}
"""Tags of a registered version, and the file that each is the hash of."""


def find_version(uri: str) -> ModelVersion:
    """The registered version of a `models:/` URI.

    Raises:
        ValueError: the URI is of another form, or there is no such version.
    """
    name, _, alias = uri.removeprefix("models:/").partition("@")
    name, _, number = name.partition("/")
    if not uri.startswith("models:/") or not name or bool(alias) == bool(number):
        raise ValueError(f"model is {uri!r}: must be models:/<name>@<alias> or models:/<name>/<version>")
    client = mlflow.MlflowClient()
    try:
        return client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, number)
    except MlflowException as error:
        reason = str(error).splitlines()[0]
        where = mlflow.get_tracking_uri()
        raise ValueError(f"{uri} is not in the registry at {where} ({reason}): register or promote it") from None


def download(version: ModelVersion, place: Path) -> tuple[Path, dict[str, Any]]:
    """The folder in `place` with a version's weights and card, and what its requests mean when they do not say: n and
    failure_prob."""
    uri = f"models:/{version.name}/{version.version}"

    def fetch(path: str) -> Path:
        return Path(mlflow.artifacts.download_artifacts(f"{uri}/{path}", dst_path=str(place)))

    model = Model.load(str(fetch("MLmodel")))
    defaults = {spec.name: spec.default for spec in model.signature.params if spec.name in ("n", "failure_prob")}
    return fetch(model.flavors["python_function"]["artifacts"]["model"]["path"]), defaults


def refuse_other_files(folder: Path, version: ModelVersion) -> None:
    """Raises ValueError naming the file in `folder` that is not the registered version's."""
    what = f"{version.name} v{version.version}"
    for tag, name in REGISTERED_HASHES.items():
        path = folder / name
        if tag not in version.tags:
            raise ValueError(f"{what} says no {tag} to check {name} against: run the register stage again")
        if not path.exists() or hash_file(path) != version.tags[tag]:
            raise ValueError(f"{what}: {name} is not the file that was registered: do not use it, register it again")


def fetch_weights(version: ModelVersion, folder: Path) -> ModelCard:
    """Put a version's weights and card into `folder`, unless they are there.

    Raises:
        ValueError: what the registry holds are not the weights that were registered.
    """
    registered = version.tags.get(WEIGHTS_SHA256)
    if not _holds(folder, registered):
        with tempfile.TemporaryDirectory() as temporary, replaced(folder) as (place,):
            fetched, _ = download(version, Path(temporary))
            if not _holds(fetched, registered):
                raise ValueError(
                    f"{version.name} v{version.version} does not hold the weights that were registered "
                    f"({WEIGHTS_SHA256} {registered}): restore the artifacts of the tracking server, or roll back"
                )
            shutil.copytree(fetched, place)
    return load_card(folder)


def _holds(folder: Path, weights_sha256: str | None) -> bool:
    """Whether the weights in a folder are those, and its card says so."""
    path = folder / WEIGHTS
    return (
        path.exists()
        and (folder / CARD).exists()
        and hash_file(path) == weights_sha256 == load_card(folder).weights_sha256
    )
