"""Registered models as classifiers: weights and card as files, checked against the registry before the first answer.

No pickle is read, and the code is the caller's: the files are a JSON card and safetensors. The one exception is a
network that is not ours: its code lies beside its weights, is checked as they are, and runs when the model is loaded.
"""

import tempfile
from pathlib import Path

import yaml

from components.certification.classifier import DEFAULT_LIMITS, Limits, Origin, SmoothedClassifier
from components.model import weights
from components.registry.model_files import download, find_version, refuse_other_files
from components.tools.device import use_device

VERSION_FILE = "registered_model_meta"
"""MLflow writes this file into a folder that it downloads by a `models:/` or `runs:/` URI. It holds the name and number
of the version, or nulls."""


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
        network, card = weights.load(folder, use_device(threads=1))
    origin = Origin(version.name, str(version.version))
    return SmoothedClassifier(network, card, origin=origin, limits=limits, **defaults)


def refuse_other_files_than_registered(folder: Path) -> Origin:
    """Check the files of a model that MLflow has downloaded, as `refuse_other_files` does; return its version.

    A model that was loaded by its run or its id is not a registered version. It is checked only against its card, when
    its weights are loaded.
    """
    for root in folder.parents:
        if (root / VERSION_FILE).exists():
            named = yaml.safe_load((root / VERSION_FILE).read_text(encoding="utf-8"))
            if named["model_name"] is None:
                return Origin()
            version = find_version(f"models:/{named['model_name']}/{named['model_version']}")
            refuse_other_files(folder, version)
            return Origin(version.name, str(version.version))
    return Origin()
