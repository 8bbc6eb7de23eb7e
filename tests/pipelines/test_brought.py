"""The stage that writes down what a recipe brings along, by which DVC reruns the trainings."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from components import own_code, params
from components.methods import Catrs
from components.parsing import ParamsError, read_yaml
from pipelines import artifacts, brought
from tests.support.own_code import LINEAR, project, write

__all__ = ["project"]
ROOT = Path(__file__).parents[2]


def written(**train):
    recipe = params.load(ROOT / "params.yaml")
    own_code._find.cache_clear()
    brought.run(replace(recipe, train=replace(recipe.train, **train)))
    return json.loads(artifacts.BROUGHT.read_text())


def test_a_recipe_of_ours_brings_nothing(project):
    assert written() == {}


def test_network_and_method_are_there_with_their_sources_and_packages(project):
    write(project, net=LINEAR, mine="import net")
    facts = written(network="net:build", method="mine:objective")
    assert set(facts["network"]["files"]) == {"net.py"}
    assert set(facts["method"]["files"]) == {"mine.py", "net.py"}
    assert set(facts["network"]["packages"]) == {"torch"}
    write(project, net="x = 1")
    assert written(network="net:build", method="mine:objective") != facts
    assert set(written(network="torchvision:resnet18")["network"]["packages"]) == {"torchvision"}


def test_the_model_that_catrs_asks_is_there_by_its_content(project):
    (project / "gaussian").write_bytes(b"1")
    chosen = {"method": "catrs", "catrs": Catrs(targets="gaussian")}
    facts = written(**chosen)
    assert set(facts["targets"]) == {"0.25", "0.5", "1.0"}
    (project / "moved").write_bytes(b"1")
    assert written(**chosen | {"catrs": Catrs(targets="moved")}) == facts
    (project / "gaussian").write_bytes(b"2")
    assert written(**chosen) != facts
    assert written(**chosen | {"method": "smoothmix"}) == {}
    with pytest.raises(ValueError, match=r"train\.catrs\.targets is 'none': there is no file"):
        written(**chosen | {"catrs": Catrs(targets="none")})


def test_what_is_missing_is_named(project):
    with pytest.raises(ValueError, match=r"train\.network is 'net:build': there is no module net: install it, or put"):
        written(network="net:build")
    with pytest.raises(ValueError, match=r"train\.method is 'mine:objective': there is no module mine"):
        written(method="mine:objective")


# --- params.yaml -------------------------------------------------------------------------------------------------


def parsed(levels=None, **train):
    raw = read_yaml(ROOT / "params.yaml")
    raw["train"] |= train
    raw["noise_levels"] |= levels or {}
    return params.parse(raw)


def test_a_level_s_own_hyper_parameters_stand_over_the_common_ones():
    recipe = parsed({"0.5": {"own_method": {"b": 3}}}, method="mine:objective", own_method={"a": 1, "b": 2})
    assert recipe.train_at(0.5).own_method == {"a": 1, "b": 3}
    assert recipe.train_at(0.25).own_method == {"a": 1, "b": 2}
    facts = recipe.train_at(0.5).facts
    assert {name: value for name, value in facts.items() if "." in name} == {"own_method.a": 1, "own_method.b": 3}


@pytest.mark.parametrize("network", ["a.b:c", "torchvision:resnet18", "timm:resnet18.a1_in1k", "timm:vit-tiny"])
def test_dotted_names_and_those_of_libraries_are_taken(network):
    assert parsed(network=network).train.brought == {"network": network}


@pytest.mark.parametrize("name", ["a.b.c", "a/b:c", "a:", ":c", "a:b:c", "a b:c", "1a:b", "my-module:f", ""])
def test_other_forms_are_refused_with_the_names_and_the_form(name):
    with pytest.raises(ParamsError) as refused:
        parsed(network=name, method=name)
    for field, first in (("network", "small_convnet, lenet"), ("method", "smoothmix, gaussian")):
        assert f"train.{field} is {name!r}: must be one of {first}" in str(refused.value)
    assert "package.module:function for one of your own (docs/own-network.md)" in str(refused.value)


@pytest.mark.parametrize("levels", [{"0.5": {"own_method": 3}}, {"0.5": {"own_method": None}}])
def test_a_section_that_is_no_mapping_is_refused(levels):
    with pytest.raises(ParamsError, match=r"noise_levels\.0\.5\.own_method is .*: must be a mapping"):
        parsed(levels)
