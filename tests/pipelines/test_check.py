"""What can be said before anything runs: whether the network takes the images that the source will give."""

import re
import sys
from dataclasses import replace

import pytest
import torch

from components import params
from components.data.picture_forms import USUAL_VIEW
from components.data.sources.published import digits
from components.model import networks
from pipelines.check import image_shape
from tests.support.workspace import ROOT, run

pytestmark = pytest.mark.medium


def check(folder, changes=None):
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    for pattern, replacement in (changes or {}).items():
        text, count = re.subn(pattern, replacement, text)
        assert count
    (folder / "params.yaml").write_text(text, encoding="utf-8")
    return run(folder, sys.executable, "-m", "pipelines.check", PYTHONPATH=str(ROOT))


def test_a_good_recipe_gets_one_line_about_what_it_is(tmp_path):
    done = check(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "params.yaml is fine: models digits-sigma-..., small_convnet trained by smoothmix on digits, "
        "at the noise levels 0.25, 0.5, 1.0\n"
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({r"small_convnet": "lenet", "enlarge: 2": "enlarge: 1"}, "'lenet': does not fit images of 1x8x8"),
        (
            {
                "source: digits": "source: image_folder\n  root: d\n  image_size: 33\n  channels: 3",
                r"\n  enlarge.*": "",
            },
            "'small_convnet': does not fit images of 3x33x33: choose one that does (lenet, resnet20, resnet110",
        ),
    ],
)
def test_a_network_that_does_not_take_the_images_is_refused_in_one_line(tmp_path, changes, words):
    done = check(tmp_path, changes)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"error: train.network is {words}" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_s_network_takes_its_images(path):
    recipe = params.load(path)
    networks.check_fit(recipe.train.network, image_shape(recipe.prepare))


def test_the_shapes_are_those_of_the_sources():
    recipe = params.load(ROOT / "recipes/digits.yaml")
    prepare = replace(recipe.prepare, enlarge=1)
    assert image_shape(prepare) == digits().images.shape[1:]
    assert image_shape(params.load(ROOT / "recipes/imagenet.yaml").prepare) == tuple(USUAL_VIEW.shape)


@pytest.mark.parametrize("name", networks.NETWORKS)
@pytest.mark.parametrize("side", [15, 16])
def test_what_is_said_to_fit_does_and_the_rest_does_not(name, side):
    state = torch.get_rng_state()
    fits = networks.fits(name, (1, side, side))
    assert torch.equal(torch.get_rng_state(), state), "asking draws no random numbers"
    try:
        networks.build(name, (1, side, side), 2).eval()(torch.zeros(1, 1, side, side))
    except RuntimeError:
        assert not fits
    else:
        assert fits
