"""The registered model: a classifier whose every answer carries a certified radius.

MLflow stores this file and the weights, not a pickled object ("models from code"), and runs the file when it loads
the model: importing it sets MLflow's current model, so nothing imports it. See `packaging`.
"""

import json
import os
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from components.certification.classifier import Limits, SmoothedClassifier, images_of, write_requests
from components.model import weights
from components.registry.loading import refuse_other_files_than_registered
from components.tools.device import use_device

SERVED = "__pyfunc_model_path__"
"""Environment variable that `mlflow models serve` sets."""


class Refused(MlflowException, ValueError):
    """A request that cannot be answered. MLflow's server returns status 400 and the sentence, and does not quote the
    images."""

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
            model_input: (B, C, H, W) in [0, 1], float32 or convertible to it.
            params: `n` samples per image, `failure_prob` of each certificate, and the preset `radius`, if any.

        Returns:
            As `SmoothedClassifier.certify`.

        Raises:
            Refused: a ValueError whose one sentence names what is wrong.
        """
        try:
            return self.classifier.certify(images_of(model_input), **(params or {}))
        except ValueError as error:
            raise Refused(str(error)) from None


mlflow.models.set_model(SmoothedModel())
