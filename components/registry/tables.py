"""The tables of certificates that the registry holds, on the tracking server that MLflow is set to."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from components.certification import table
from components.evaluation.verdict import Certified
from components.registry.model_files import NETWORK_CODE, WEIGHTS_SHA256
from components.registry.tracking import CONTENT
from components.tools.files import read_json
from components.tools.hashing import hash_file, hash_value


def content_hash(model: Mapping[str, Any], table_file: Path) -> str:
    """The hash that a version is found by: of its weights, the code of a network that is not ours, and its table.

    Args:
        model: the content of its card, or a table's identity, which has it.
    """
    code = [model[NETWORK_CODE]] if NETWORK_CODE in model else []
    return hash_value([model[WEIGHTS_SHA256], *code, hash_file(table_file)])


def run_table(version: ModelVersion) -> Certified | None:
    """The newest table in a version's run, or None. Its `attrs["content"]` is the `content_hash` of its model and
    itself."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            files = Path(MlflowClient().download_artifacts(str(version.run_id), "certificates", folder))
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        except OSError:  # a local store raises this for missing artifacts
            return None
        if not (files / table.IDENTITY).exists():  # a server gives an empty folder instead
            return None
        identity = read_json(files / table.IDENTITY, "register the model again")
        certified = Certified(table.read(files / "table.tsv"), identity)
        certified.table.attrs["content"] = content_hash(identity, files / "table.tsv")
        return certified


def table_of(version: ModelVersion) -> Certified | None:
    """The newest table in a version's run, if it was made with the version's weights. It may be newer than the one that
    the version was registered with; see `registered_table`."""
    certified = run_table(version)
    if certified is None or certified.identity[WEIGHTS_SHA256] != version.tags.get(WEIGHTS_SHA256):
        return None
    return certified


def registered_table(version: ModelVersion) -> Certified:
    """The table that a version was registered with.

    Raises:
        ValueError: the run does not hold it any more.
    """
    certified = table_of(version)
    if certified is None or certified.table.attrs["content"] != version.tags[CONTENT]:
        raise ValueError(
            f"the run of {version.name} v{version.version} does not hold the table that it was registered with: run "
            "the register stage again"
        )
    return certified
