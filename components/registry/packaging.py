"""Logs a trained network as an MLflow model: its files, code, signature and requirements.

The code of a network that is not ours is among the files of the model, not among MLflow's `code_paths`: it is checked
against the card and runs under a name of its own, so that two versions of it do not get into each other's way.
"""

import sys
import warnings
from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec

import components
from components.certification.classifier import Limits
from components.model.card import load_card

MODEL_CODE = Path(__file__).with_name("smoothed_model.py")
"""The file that MLflow stores, and runs to load the model."""
REQUIREMENTS = ("mlflow", "torch", "numpy", "scipy", "pandas", "statsmodels", "safetensors", "PyYAML", "filelock")
"""Packages that every model imports."""
NETWORK_REQUIREMENTS = {"resnet50": ("torchvision",)}
"""Packages that a network imports in addition."""


def requirements(network: str, packages: Iterable[str] = ()) -> tuple[str, ...]:
    """The packages that a model with this network imports.

    Args:
        packages: those that a network which is not ours imports.
    """
    ours = REQUIREMENTS + NETWORK_REQUIREMENTS.get(network, ())
    return ours + tuple(name for name in packages if name not in ours)


def log_model(run_id: str, folder: Path, n: int, failure_prob: float, example: np.ndarray | None = None) -> str:
    """Log the network in `folder` to a run as a `SmoothedModel`; return its `models:/` URI.

    Args:
        n, failure_prob: the defaults of `predict`.
        example: images (B, C, H, W) that show what a request holds. They are not answered here.
    """
    card = load_card(folder)
    with mlflow.start_run(run_id=run_id), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*[Ii]nput example.*")  # the signature is stated, not guessed
        info = Model.log(
            artifact_path=None,
            name="model",
            flavor=sys.modules[__name__],  # `save_model` below
            python_model=str(MODEL_CODE),
            artifacts={"model": str(folder)},
            code_paths=[str(Path(components.__file__).parent)],
            pip_requirements=[
                f"{name}=={version(name)}" for name in requirements(card.network, card.code.get("packages", ()))
            ],
            signature=signature_of(card.image_shape, n, failure_prob),
            input_example=example,
            validate_serving_input=False,  # it would load the model and answer the example
            metadata={"images": f"float32 (B, {', '.join(map(str, card.image_shape))}) in [0, 1]"},
        )
    return str(info.model_uri)


def save_model(path: str, mlflow_model: Model, validate_serving_input: bool, **parts: Any) -> None:
    """What `Model.log` asks of a flavour: `mlflow.pyfunc`'s files. `mlflow.pyfunc.log_model` has no
    `validate_serving_input`, and writes the limits to the run as if they were parameters of its training."""
    mlflow.pyfunc.save_model(path, mlflow_model=mlflow_model, model_config=asdict(Limits()), **parts)


def signature_of(image_shape: list[int], n: int, failure_prob: float) -> ModelSignature:
    """What a request and an answer hold.

    MLflow shows the images' schema and leaves the check to `predict`: its own would refuse all types but float32, and
    quote the images in its error. MLflow has this for models that take their schema from type hints; arrays have none.
    """
    answer = {"class": "long", "class_name": "string", "radius": "double", "abstain": "boolean", "p_lower": "double"}
    answer |= {"p_upper": "double", "n": "long", "rounded": "boolean"}
    params = {"n": ("long", n), "failure_prob": ("double", failure_prob), "radius": ("double", None)}
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, *image_shape))]),
        outputs=Schema([ColSpec(kind, name) for name, kind in answer.items()]),
        params=ParamSchema([ParamSpec(name, kind, default) for name, (kind, default) in params.items()]),
    )
    signature._is_signature_from_type_hint = True
    return signature
