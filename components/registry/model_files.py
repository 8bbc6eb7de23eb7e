"""Weights and card of registered versions, as files that are checked against what was registered. Imports no torch."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from components.model.card import CARD, WEIGHTS, ModelCard, load_card
from components.registry.connection import NOT_THERE, first_line, in_one_line
from components.tools.files import replaced
from components.tools.hashing import hash_file

WEIGHTS_SHA256, NETWORK_CODE = "weights_sha256", "network_code_sha256"
"""What makes a model, as `ModelCard.content` calls it; the second for networks that are not ours alone."""
REGISTERED_HASHES = {WEIGHTS_SHA256: WEIGHTS, "card_sha256": CARD}
"""Tags of a registered version, and the file that each is the hash of."""


def parse_uri(uri: str) -> tuple[str, str, str]:
    """Name, alias and number of a `models:/` URI; either alias or number is empty.

    Raises:
        ValueError: the URI is of another form.
    """
    name, _, alias = uri.removeprefix("models:/").partition("@")
    name, _, number = name.partition("/")
    if not uri.startswith("models:/") or not name or bool(alias) == bool(number):
        raise ValueError(f"model is {uri!r}: must be models:/<name>@<alias> or models:/<name>/<version>")
    return name, alias, number


def find_version(uri: str) -> ModelVersion:
    """The registered version of a `models:/` URI.

    Raises:
        ValueError: the URI has another form, there is no such version, or its registration failed.
    """
    name, alias, number = parse_uri(uri)
    with in_one_line("try again"):
        client = mlflow.MlflowClient()
        try:
            version = (
                client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, number)
            )
        except MlflowException as error:
            if error.error_code not in (*NOT_THERE, "INVALID_PARAMETER_VALUE"):
                raise
            where = mlflow.get_tracking_uri()
            raise ValueError(
                f"{uri} is not in the registry at {where} ({first_line(error)}): register or promote it"
            ) from None
    if version.status != "READY":
        raise ValueError(
            f"{version.name} v{version.version} is {version.status}, its registration did not succeed: "
            "run the register stage again"
        )
    return version


def download(version: ModelVersion, place: Path) -> tuple[Path, dict[str, Any]]:
    """Download a version's weights and card into `place`; return their folder and the defaults of n and failure_prob.

    Raises:
        ValueError: the tracking server does not deliver the files.
    """
    uri = f"models:/{version.name}/{version.version}"

    def fetch(path: str) -> Path:
        return Path(mlflow.artifacts.download_artifacts(f"{uri}/{path}", dst_path=str(place)))

    with in_one_line("try again"):
        try:
            model = Model.load(str(fetch("MLmodel")))
            folder = fetch(model.flavors["python_function"]["artifacts"]["model"]["path"])
        except (MlflowException, OSError) as error:
            if isinstance(error, MlflowException) and error.error_code not in NOT_THERE:
                raise
            raise ValueError(
                f"the files of {version.name} v{version.version} are gone ({first_line(error)}): restore the tracking "
                "server's artifacts, or run the register stage again, which makes a version that has them"
            ) from None
    return folder, {spec.name: spec.default for spec in model.signature.params if spec.name in ("n", "failure_prob")}


def refuse_other_files(folder: Path, version: ModelVersion) -> None:
    """Raises ValueError naming the file in `folder` that is not the registered version's."""
    what = f"{version.name} v{version.version}"
    for tag, name in REGISTERED_HASHES.items():
        path = folder / name
        if tag not in version.tags:
            raise ValueError(f"{what} has no tag {tag}, which {name} is checked against: run the register stage again")
        if not path.exists() or hash_file(path) != version.tags[tag]:
            raise ValueError(f"{what}: {name} is not the file that was registered: do not use it, register it again")


def fetch_weights(version: ModelVersion, folder: Path) -> ModelCard:
    """Put a version's weights, card and code into `folder`, unless they are there.

    Raises:
        ValueError: the registry does not hold the weights that were registered.
    """
    if not _holds(folder, version):
        with tempfile.TemporaryDirectory() as temporary, replaced(folder) as (place,):
            fetched, _ = download(version, Path(temporary))
            if not _holds(fetched, version):
                registered = version.tags.get(WEIGHTS_SHA256)
                raise ValueError(
                    f"{version.name} v{version.version} does not hold the weights that were registered "
                    f"({WEIGHTS_SHA256} {registered}): restore the artifacts of the tracking server, or roll back"
                )
            shutil.copytree(fetched, place)
    return load_card(folder)


def _holds(folder: Path, version: ModelVersion) -> bool:
    """Whether a folder holds the version's weights, and a card that names them and the version's code."""
    path = folder / WEIGHTS
    if not path.exists() or not (folder / CARD).exists():
        return False
    named = load_card(folder).content
    code = version.tags.get(NETWORK_CODE, named.get(NETWORK_CODE))  # versions of before lack the tag
    return (
        hash_file(path) == named[WEIGHTS_SHA256] == version.tags.get(WEIGHTS_SHA256) and named.get(NETWORK_CODE) == code
    )
