"""Registered models as classifiers: weights and card as files, checked against the registry before the first answer.

Neither a pickle nor code of the registry is run: the files are a card in JSON and tensors in safetensors, the code is
the one that calls.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

import mlflow
import yaml
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from components import trained_model
from components.device import use_device
from components.identity import hash_file
from components.model_card import CARD, WEIGHTS
from components.serving.classifier import DEFAULT_LIMITS, Limits, Origin, SmoothedClassifier

REGISTERED_HASHES = {"weights_sha256": WEIGHTS, "card_sha256": CARD}
"""Tags of a registered version, and the file that each is the hash of."""
VERSION_FILE = "registered_model_meta"
"""MLflow leaves it in a folder that it downloaded for a version, with the version's name and number."""


def load_classifier(uri: str, limits: Limits = DEFAULT_LIMITS) -> SmoothedClassifier:
    """The classifier of a registered version, from the tracking server that MLflow is set to.

    Sets torch to deterministic algorithms and one thread per operation, as certification does.

    Args:
        uri: models:/<name>@<alias> or models:/<name>/<version>.

    Raises:
        ValueError: there is no such version, or a file is not the one that was registered; the file is named.
    """
    version = find_version(uri)
    with tempfile.TemporaryDirectory() as place:
        folder, defaults = download(version, Path(place))
        refuse_other_files(folder, version)
        network, card = trained_model.load(folder, use_device(threads=1))
    origin = Origin(version.name, str(version.version))
    return SmoothedClassifier(network, card, origin=origin, limits=limits, **defaults)


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


def download_run_folder(version: ModelVersion, folder: str, place: Path) -> Path:
    """A folder of the artifacts of the run that made a version, fetched into `place`."""
    return Path(mlflow.artifacts.download_artifacts(run_id=version.run_id, artifact_path=folder, dst_path=str(place)))


def refuse_other_files(folder: Path, version: ModelVersion) -> None:
    """Raises ValueError naming the file in `folder` that is not the registered version's."""
    what = f"{version.name} v{version.version}"
    for tag, name in REGISTERED_HASHES.items():
        path = folder / name
        if tag not in version.tags:
            raise ValueError(f"{what} says no {tag} to check {name} against: run the register stage again")
        if not path.exists() or hash_file(path) != version.tags[tag]:
            raise ValueError(f"{what}: {name} is not the file that was registered: do not use it, register it again")


def refuse_other_files_than_registered(folder: Path) -> Origin:
    """As `refuse_other_files`, for the files of a model that MLflow has downloaded; which version that is.

    A model that does not come from the registry is checked against its card alone, when it is loaded.
    """
    for root in folder.parents:
        if (root / VERSION_FILE).exists():
            named = yaml.safe_load((root / VERSION_FILE).read_text())
            version = find_version(f"models:/{named['model_name']}/{named['model_version']}")
            refuse_other_files(folder, version)
            return Origin(version.name, str(version.version))
    return Origin()
