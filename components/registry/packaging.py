"""Logs a trained network as an MLflow model: its files, code, signature and requirements.

The code of a network that is not ours is among the files of the model, not among MLflow's `code_paths`: it is checked
against the card and runs under a name of its own, so that two versions of it do not get into each other's way.
"""

import warnings
from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import mlflow
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

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


def log_model(run_id: str, folder: Path, n: int, failure_prob: float) -> str:
    """Log the network in `folder` to a run as a `SmoothedModel`; return its `models:/` URI.

    Args:
        n, failure_prob: the defaults of `predict`.
    """
    card = load_card(folder)
    shape = ", ".join(map(str, card.image_shape))
    answer = {"class": "long", "class_name": "string", "radius": "double", "abstain": "boolean", "p_lower": "double"}
    answer |= {"p_upper": "double", "n": "long", "rounded": "boolean"}
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
            python_model=str(MODEL_CODE),
            artifacts={"model": str(folder)},
            code_paths=[str(Path(components.__file__).parent)],
            pip_requirements=[
                f"{name}=={version(name)}" for name in requirements(card.network, card.code.get("packages", ()))
            ],
            signature=signature,
            model_config=asdict(Limits()),
            metadata={"images": f"float32 (B, {shape}) in [0, 1]"},
        )
    return str(info.model_uri)
