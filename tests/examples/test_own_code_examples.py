"""The examples of a network and a method of one's own, through the real commands, and the pages about them."""

import json
import re
import subprocess
import sys

import pytest
import torch
import yaml

from components import params
from components.model import networks, weights
from components.training.checks import check_method
from tests.support.workspace import ROOT, copy_project, edit, environment

pytestmark = pytest.mark.medium
PAGES = {"own-network.md": "own_network", "own-method.md": "own_method"}


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.DOTALL)


def with_page(page: str, recipe: str) -> params.Params:
    """The recipe with the lines of a page's first YAML block."""
    raw, lines = yaml.safe_load(recipe), yaml.safe_load(blocks(page, "yaml")[0])
    raw["train"] |= lines["train"]
    for sigma, level in lines.get("noise_levels", {}).items():
        raw["noise_levels"][sigma] |= level
    return params.parse(raw)


@pytest.mark.parametrize(("page", "example"), PAGES.items())
def test_a_page_shows_the_example_as_it_is(page, example):
    assert blocks(page, "python")[0] == (ROOT / f"examples/{example}.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_the_recipe_of_a_page_passes_the_checks(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    recipe = with_page(page, (ROOT / "recipes/digits.yaml").read_text(encoding="utf-8"))
    for sigma in recipe.sigmas:
        networks.check_fit(recipe.train.network, (1, 16, 16), 10)
        check_method(recipe.train_at(sigma), sigma, (1, 16, 16), 10)


@pytest.mark.parametrize("page", PAGES)
def test_the_refusals_on_a_page_are_what_the_check_says(page, tmp_path):
    for shown in blocks(page, "console"):
        command, *said = shown.strip().splitlines()
        key, value = re.search(r"train\.(\w+) is '([^']*)'", said[0]).groups()
        recipe = yaml.safe_load((ROOT / "recipes/digits.yaml").read_text(encoding="utf-8"))
        recipe["train"][key] = value
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(recipe))
        (tmp_path / "examples").symlink_to(ROOT / "examples")
        done = subprocess.run(
            [sys.executable, *command.removeprefix("$ python ").split()],
            cwd=tmp_path,
            env=environment() | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert done.stderr.strip().splitlines() == said
        (tmp_path / "examples").unlink()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A slice of the digits, trained with the network and the method of the examples."""
    project = copy_project(tmp_path_factory.mktemp("examples"))
    changes = {"network: small_convnet": "network: examples.own_network:build"}
    changes |= {"method: smoothmix.*": "method: examples.own_method:mixup\n  own_method: {most: 0.3}"}
    edit(project / "params.yaml", changes | {r'\n  "1.0":(\n    .*)*': "", "epochs: 2": "epochs: 4"})
    for command in ("check", "prepare", "validate", "brought", "train --sigma 0.5"):
        done = subprocess.run(
            [sys.executable, "-m", *f"pipelines.{command}".split()],
            cwd=project,
            env=environment(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    return project


def test_both_train_and_the_model_s_folder_suffices_to_load_it(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network, card = weights.load(trained / "outputs/models/0.5")
    assert network(torch.zeros(2, 1, 16, 16)).shape == (2, 10)
    assert card.training["own_method.most"] == 0.3
    assert {"network_code_sha256", "method_code_sha256"} <= set(card.training)
    rows = (trained / "outputs/training_logs/0.5/history.csv").read_text().splitlines()[1:]
    losses = [float(row.split(",")[2]) for row in rows]
    assert losses[-1] < losses[0]


def test_certification_follows_the_code_of_the_model_not_of_the_project(trained):
    (trained / "examples/own_network.py").write_text("raise RuntimeError('not this one')")
    command = [sys.executable, "-m", "pipelines.certify", "--sigma", "0.5"]
    done = subprocess.run(command, cwd=trained, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    identity = json.loads((trained / "outputs/certificates/0.5/identity.json").read_text())
    assert "network_code_sha256" in identity
