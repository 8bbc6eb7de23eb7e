"""The registered model: a classifier whose every answer carries a certified radius.

MLflow stores this file and the weights, not a pickled object ("models from code"), and runs the file when it loads
the model.
"""

import json
import os
import warnings
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

import components
from components.certification.classifier import Limits, SmoothedClassifier, images_of, write_requests
from components.model import weights
from components.model.card import load_card
from components.registry.loading import refuse_other_files_than_registered
from components.tools.device import use_device

REQUIREMENTS = ("mlflow", "torch", "numpy", "scipy", "pandas", "statsmodels", "safetensors", "PyYAML")
SERVED = "__pyfunc_model_path__"
"""In the environment of `mlflow models serve`."""


class Refused(MlflowException, ValueError):
    """A request that cannot be answered; MLflow's server gives status 400 and the sentence, without the images that it
    would quote."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, error_code=INVALID_PARAMETER_VALUE)
        self._sentence = sentence

    def serialize_as_json(self) -> str:
        return json.dumps({"error_code": self.error_code, "message": self._sentence})


class SmoothedModel(PythonModel):
    """`predict(images, params={"n": ..., "failure_prob": ..., "radius": ...})`."""

    def load_context(self, context: PythonModelContext) -> None:
        if SERVED in os.environ:
            write_requests()
        folder = Path(context.artifacts["model"])
        origin = refuse_other_files_than_registered(folder)
        network, card = weights.load(folder, use_device(threads=1))
        limits = Limits(**context.model_config)
        self.classifier = SmoothedClassifier(network, card, origin=origin, limits=limits)

    def predict(
        self, context: PythonModelContext, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Certify each image with fresh, unpredictable noise.

        Args:
            model_input: (B, C, H, W) in [0, 1], float32 or what becomes that.
            params: `n` samples per image, `failure_prob` of each certificate, and the preset `radius`, if any.

        Returns:
            As `SmoothedClassifier.certify`.

        Raises:
            Refused: a ValueError of one sentence, that names what is wrong.
        """
        try:
            return self.classifier.certify(images_of(model_input), **(params or {}))
        except ValueError as error:
            raise Refused(str(error)) from None


def log_model(run_id: str, folder: Path, n: int, failure_prob: float) -> str:
    """Log the network in `folder` to a run as a `SmoothedModel`; its `models:/` URI.

    Args:
        n, failure_prob: what `predict` uses unless told otherwise.
    """
    shape = ", ".join(map(str, load_card(folder).image_shape))
    answer = {"class": "long", "class_name": "string", "radius": "double", "abstain": "boolean", "p_lower": "double"}
    answer["n"] = "long"
    params = {"n": ("long", n), "failure_prob": ("double", failure_prob), "radius": ("double", None)}
    signature = ModelSignature(
        # The images have no schema: MLflow's errors would quote them. `predict` checks them, in one sentence.
        outputs=Schema([ColSpec(kind, name) for name, kind in answer.items()]),
        params=ParamSchema([ParamSpec(name, kind, default) for name, (kind, default) in params.items()]),
    )
    with mlflow.start_run(run_id=run_id), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*[Ii]nput example.*")  # the signature is stated, not guessed
        info = mlflow.pyfunc.log_model(
            name="model",
            python_model=__file__,
            artifacts={"model": str(folder)},
            code_paths=[str(Path(components.__file__).parent)],
            pip_requirements=[f"{name}=={version(name)}" for name in REQUIREMENTS],
            signature=signature,
            model_config=asdict(Limits()),
            metadata={"images": f"float32 (B, {shape}) in [0, 1]"},
        )
    return str(info.model_uri)


mlflow.models.set_model(SmoothedModel())
