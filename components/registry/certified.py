"""What the registry holds of a certified model: its table, and its weights."""

import shutil
import tempfile
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from components.certification import table
from components.evaluation.verdict import Certified
from components.files import read_json, replaced
from components.identity import hash_file, hash_value
from components.model_card import CARD, WEIGHTS, ModelCard, load_card
from components.registry.tracking import CONTENT

WEIGHTS_SHA256 = "weights_sha256"
"""Tag of a version: the hash of its weights."""


def table_of(client: MlflowClient, version: ModelVersion) -> Certified | None:
    """The newest table in a version's run, if it was made with the version's weights. It may be a newer one than that
    which the version was registered with; see `registered_table`."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            files = Path(client.download_artifacts(str(version.run_id), "certificates", folder))
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        except OSError:  # what a local store says of artifacts that are not there
            return None
        if not (files / table.IDENTITY).exists():  # a server answers with an empty folder
            return None
        identity = read_json(files / table.IDENTITY, "register the model again")
        if identity["weights_sha256"] != version.tags.get(WEIGHTS_SHA256):
            return None
        certified = Certified(table.read(files / "table.tsv"), identity)
        certified.table.attrs["content"] = hash_value([identity["weights_sha256"], hash_file(files / "table.tsv")])
        return certified


def registered_table(client: MlflowClient, version: ModelVersion) -> Certified:
    """The table that a version was registered with.

    Raises:
        ValueError: the run does not hold it any more.
    """
    certified = table_of(client, version)
    if certified is None or certified.table.attrs["content"] != version.tags[CONTENT]:
        raise ValueError(
            f"the run of {version.name} v{version.version} does not hold the table that it was registered with: run "
            "the register stage again"
        )
    return certified


def fetch_weights(version: ModelVersion, folder: Path) -> ModelCard:
    """Put a version's weights and card into `folder`, unless they are there.

    Raises:
        ValueError: what the registry holds are not the weights that were registered.
    """
    registered = version.tags.get(WEIGHTS_SHA256)
    if not _holds(folder, registered):
        with tempfile.TemporaryDirectory() as temporary, replaced(folder) as (place,):
            uri = f"models:/{version.name}/{version.version}"
            model = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=temporary))
            cards = list(model.glob(f"artifacts/*/{CARD}"))
            if len(cards) != 1 or not _holds(cards[0].parent, registered):
                raise ValueError(
                    f"{version.name} v{version.version} does not hold the weights that were registered "
                    f"({WEIGHTS_SHA256} {registered}): restore the artifacts of the tracking server, or roll back"
                )
            shutil.copytree(cards[0].parent, place)
    return load_card(folder)


def _holds(folder: Path, weights_sha256: str | None) -> bool:
    """Whether the weights in a folder are those, and its card says so."""
    path = folder / WEIGHTS
    return (
        path.exists()
        and (folder / CARD).exists()
        and hash_file(path) == weights_sha256 == load_card(folder).weights_sha256
    )
