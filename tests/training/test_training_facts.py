"""What a training is a function of: the facts whose hash names its checkpoints."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from components import params
from components.data.prepared import Description, Split
from components.methods import Stability
from components.training.objectives import OBJECTIVES
from components.training.ranks import Ranks
from pipelines.train import Job

ROOT = Path(__file__).parents[2]
DESCRIPTION = Description("digits", "", ["0", "1"], [1, 16, 16], 16, None, None, 2, 2, "", "")
SPLIT = Split(np.zeros((2, 1, 16, 16), np.uint8), np.array([0, 1]))


@pytest.fixture
def recipe():
    return params.load(ROOT / "params.yaml")


def facts(recipe, **changes):
    recipe = replace(recipe, train=replace(recipe.train, **changes))
    return Job(recipe, 0.5, recipe.train_at(0.5), DESCRIPTION, SPLIT, torch.device("cpu"), Ranks()).facts


@pytest.mark.parametrize("method", OBJECTIVES)
def test_they_hold_the_hyper_parameters_of_the_selected_method_alone(recipe, method):
    recipe = replace(recipe, train=replace(recipe.train, method=method))
    own = recipe.train_at(0.5).hyperparameters
    expected = {f"{method}.{name}": value for name, value in asdict(own).items()} if own else {}
    held = facts(recipe)
    assert {name: value for name, value in held.items() if "." in name} == expected
    assert not set(held) & set(params.METHOD_SECTIONS)
    assert held["method"] == method


def test_a_rival_s_hyper_parameter_leaves_them_as_they_are_and_the_method_s_own_does_not(recipe):
    smoothmix = facts(recipe, method="smoothmix")
    assert facts(recipe, method="smoothmix", stability=Stability(9.0)) == smoothmix
    assert facts(recipe, method="stability", stability=Stability(9.0)) != facts(recipe, method="stability")
