"""The registered model: a classifier whose every answer carries a certified radius.

MLflow stores this file and the weights, not a pickled object ("models from code"), and runs the file when it loads
the model.
"""

import logging
import secrets
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import torch
from mlflow.models import ModelSignature
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec

import components
from components import trained_model
from components.certification.certify import certify_image
from components.certification.sampling import Sampler
from components.certification.table import ABSTAIN
from components.model_card import load_card
from components.params import smallest_n

REQUIREMENTS = ("mlflow", "torch", "numpy", "scipy", "pandas", "statsmodels", "safetensors", "PyYAML")
N0 = 100


class SmoothedModel(PythonModel):
    """`predict(images, params={"n": ..., "failure_prob": ...})`."""

    def load_context(self, context: PythonModelContext) -> None:
        network, self.card = trained_model.load(Path(context.artifacts["model"]))
        self.sampler = Sampler(
            network,
            self.card.sigma,
            image_shape=tuple(self.card.image_shape),
            num_classes=len(self.card.classes),
            precision=self.card.precision,
        )

    def predict(
        self, context: PythonModelContext, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Certify each image with fresh, unpredictable noise.

        Args:
            model_input: float32 (B, C, H, W) in [0, 1].
            params: `n` samples per image and `failure_prob` of each certificate.

        Returns:
            One row per image: class (-1 where it abstains), class_name, radius (rounded down), abstain, p_lower.

        Raises:
            ValueError: a wrong shape, a value that is not finite or outside [0, 1], n too small for failure_prob.
        """
        n, failure_prob = int(params["n"]), float(params["failure_prob"])  # type: ignore[index]  # the schema has defaults
        if not 0 < failure_prob < 0.5:
            raise ValueError(f"failure_prob is {failure_prob!r}: must be > 0 and < 0.5")
        if n < smallest_n(failure_prob):
            raise ValueError(
                f"n is {n}: at least {smallest_n(failure_prob)} samples are needed at failure_prob {failure_prob:g}"
            )
        images = torch.from_numpy(np.ascontiguousarray(model_input, dtype=np.float32))
        if list(images.shape[1:]) != self.card.image_shape:
            raise ValueError(f"images have shape {list(images.shape[1:])}: must be {self.card.image_shape}")
        seed = secrets.randbits(63)
        certificates = [
            certify_image(
                self.sampler,
                image,
                n0=N0,
                n=n,
                failure_prob=failure_prob,
                seed=seed,
                index=index,
            )
            for index, image in enumerate(images)
        ]
        logging.getLogger(__name__).info("certified %d images with seed %d, n %d", len(images), seed, n)
        names = self.card.classes
        return pd.DataFrame(
            {
                "class": [c.predict for c in certificates],
                "class_name": [names[c.predict] if c.predict != ABSTAIN else "" for c in certificates],
                "radius": [c.radius for c in certificates],
                "abstain": [c.predict == ABSTAIN for c in certificates],
                "p_lower": [c.p_lower for c in certificates],
            }
        )


def log_model(run_id: str, folder: Path, n: int, failure_prob: float) -> str:
    """Log the network in `folder` to a run as a `SmoothedModel`; its `models:/` URI.

    Args:
        n, failure_prob: what `predict` uses unless told otherwise.
    """
    card = load_card(folder)
    answer = {"class": "long", "class_name": "string", "radius": "double", "abstain": "boolean", "p_lower": "double"}
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, *card.image_shape))]),
        outputs=Schema([ColSpec(kind, name) for name, kind in answer.items()]),
        params=ParamSchema([ParamSpec("n", "long", n), ParamSpec("failure_prob", "double", failure_prob)]),
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
        )
    return str(info.model_uri)


mlflow.models.set_model(SmoothedModel())
