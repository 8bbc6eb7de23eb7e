"""Write down what the recipe brings along beside the data: weights, and the code of a network or a method of one's own.

DVC sees none of it, so this stage always runs, in a moment; the trainings run again when its result has changed.
"""

from typing import Any

from components import own_code
from components.model.weights_files import TARGETS_KEY, identity
from components.params import Params, level_key
from components.tools.files import write_json
from pipelines import artifacts
from pipelines.cli import run_stage


def run(params: Params) -> None:
    write_json(artifacts.BROUGHT, code_facts(params) | weights_facts(params))


def code_facts(params: Params) -> dict[str, Any]:
    """The hashes of the sources and the versions of the packages that `train.network` and `train.method` stand for; {}
    where both are ours.

    Raises:
        ValueError: there is no such module.
    """
    facts = {}
    for field, name in params.train.brought.items():
        with own_code.named_errors(f"train.{field} is {name!r}"):
            facts[field] = own_code.find(name).facts
    return facts


def weights_facts(params: Params) -> dict[str, Any]:
    """What identifies the weights that trainings start from, and the models that catrs asks, by noise level; {} where
    there are none.

    Raises:
        ValueError: there is no such file.
    """
    chosen = {level_key(sigma): params.train_at(sigma).weights for sigma in params.sigmas}
    root = artifacts.weights_root()
    found = {level: identity(weights, root) for level, weights in chosen.items() if weights is not None}
    asked = {level_key(sigma): params.train_at(sigma).targets for sigma in params.sigmas}
    targets = {level: identity(model, root, TARGETS_KEY) for level, model in asked.items() if model is not None}
    return ({"weights": found} if found else {}) | ({"targets": targets} if targets else {})


if __name__ == "__main__":
    run_stage(run, __doc__)
