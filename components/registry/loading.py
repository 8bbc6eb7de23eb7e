"""Registered models as classifiers: weights and card as files, checked against the registry before the first answer.

Neither a pickle nor code of the registry is run: the files are a card in JSON and tensors in safetensors, the code is
the one that calls.
"""

import tempfile
from pathlib import Path

import yaml

from components.certification.classifier import DEFAULT_LIMITS, Limits, Origin, SmoothedClassifier
from components.model import weights
from components.registry.model_files import download, find_version, refuse_other_files
from components.tools.device import use_device

VERSION_FILE = "registered_model_meta"
"""MLflow leaves it in a folder that it downloaded by a `models:/` or `runs:/` URI, with the name and the number of the
version, or nulls."""


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
    """As `refuse_other_files`, for the files of a model that MLflow has downloaded; which version that is.

    A model that was loaded by its run or by its id is no version, and is checked against its card alone, when its
    weights are loaded.
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
