"""The classifier that callers ask: real sampling, a network of random weights."""

import json
import time

import pytest
import torch

from components.certification.classifier import TooSlow
from tests.support.serving import ANSWER, IMAGES, make_classifier, some_images


def test_every_image_gets_class_radius_abstention_and_bound(classifier):
    answers = classifier.certify(some_images(4))
    assert list(answers.columns) == ANSWER
    assert (answers["n"] == 500).all()
    for row in answers.to_dict("records"):
        assert row["abstain"] == (row["class"] == -1) == (row["p_lower"] <= row["p_upper"]) == (row["class_name"] == "")
        assert (row["radius"] > 0) == (not row["abstain"])


def test_a_preset_radius_is_certified_or_not_with_fewer_samples(classifier):
    answers = classifier.certify(some_images(4), n=20_000, radius=0.125)
    assert set(answers["radius"]) <= {0.0, 0.125}
    assert (answers["abstain"] == (answers["radius"] == 0)).all()
    assert answers["n"].sum() < 4 * 20_000
    assert ((answers["p_lower"] > 0.598) | answers["abstain"]).all(), "Phi(0.125 / 0.5) is .5987"


@pytest.mark.medium
def test_an_image_off_the_grid_is_rounded_and_its_radius_is_smaller_by_what_that_costs(classifier):
    """A quarter of a step away from an image on the grid: the same answer, to within its noise, less the loss."""
    images = some_images(4)
    moved = images + torch.where(images < 0.5, 0.25, -0.25) / 4080
    on, off = (classifier.certify(these, n=20_000) for these in (images, moved))
    assert not on["rounded"].any()
    assert off["rounded"].all()
    loss = 16 * (0.25 + 0.5) / 4080
    certified = ~on["abstain"] & ~off["abstain"]
    assert certified.any()
    assert (off["radius"] - (on["radius"] - loss))[certified].abs().max() < 0.05
    preset = classifier.certify(moved, n=20_000, radius=0.125)
    assert set(preset["radius"].round(6)) <= {0.0, round(0.125 - loss, 6)}


def test_the_network_runs_in_the_precision_of_its_card():
    classifier, seen = make_classifier("bfloat16"), []
    layer = next(layer for layer in classifier.sampler.network.modules() if isinstance(layer, torch.nn.Conv2d))
    layer.register_forward_hook(lambda _layer, _inputs, output: seen.append(output.dtype))
    classifier.certify(some_images(1), radius=0.125)
    assert set(seen) == {torch.bfloat16}


def test_predictions_are_the_classes_of_the_certificates(classifier):
    images = some_images(4)
    answers, predictions = classifier.certify(images), classifier.predict(images)
    certified = ~torch.tensor(answers["abstain"])
    assert (predictions[certified] == torch.tensor(answers["class"])[certified]).all()


def test_each_request_has_a_seed_of_its_own_and_is_logged_without_its_images(classifier, lines):
    for _ in range(2):
        classifier.certify(some_images(2), radius=0.125)
    first, second = lines
    assert first["seed"] != second["seed"]
    assert first["n_used"] > 0
    assert first.items() >= {"model": "trial", "version": "3", "weights_sha256": "0" * 64, "images": 2}.items()
    assert first.items() >= {"n": 500, "failure_prob": 0.001, "radius": 0.125}.items()
    assert len(first["radii"]) == 2
    assert len(json.dumps(first)) < 600


@pytest.mark.parametrize(
    ("images", "params", "sentence"),
    [
        (IMAGES[0], {}, r"images have shape \[1, 16, 16\]: must be \[B, 1, 16, 16\]"),
        (IMAGES[:0], {}, "images have shape"),
        (IMAGES.double(), {}, "images are torch.float64: float32"),
        ((IMAGES * 255).byte(), {}, "images are torch.uint8: float32"),
        (IMAGES.numpy(), {}, "a float32 tensor is needed"),
        (IMAGES * 2, {}, r"outside \[0, 1\]"),
        (IMAGES * float("nan"), {}, "not finite"),
        (IMAGES.repeat(5, 1, 1, 1), {}, "5 images in one request: the limit is 4 images"),
        (IMAGES, {"n": 9}, "n is 9: at least 11 samples"),
        (IMAGES, {"n": 0}, "n is 0: must be a whole number"),
        (IMAGES, {"n": -5}, "n is -5"),
        (IMAGES, {"n": 1e3}, "n is 1000.0: must be a whole number"),
        (IMAGES, {"n": True}, "n is True"),
        (IMAGES, {"n": 20_001}, "n is 20001: the limit is n = 20000"),
        (IMAGES, {"failure_prob": 0.5}, "failure_prob is 0.5"),
        (IMAGES, {"failure_prob": 0.0}, "failure_prob is 0.0"),
        (IMAGES, {"failure_prob": float("nan")}, "failure_prob is nan"),
        (IMAGES, {"failure_prob": "small"}, "failure_prob is 'small'"),
        (IMAGES, {"radius": -0.1}, "radius is -0.1"),
        (IMAGES, {"radius": float("inf")}, "radius is inf"),
        (IMAGES, {"radius": True}, "radius is True"),
        (IMAGES, {"radius": 9.0}, "radius 9.0 cannot be certified by max_n = 400"),
        (IMAGES, {"radius": 0.1, "n": 49}, "n is 49: at least 50 samples"),
        (IMAGES, {"radius": 0.12345678901}, "more than the 9 decimals"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_one_sentence(classifier, images, params, sentence):
    with pytest.raises(ValueError, match=sentence) as refused:
        classifier.certify(images, **params)
    assert "\n" not in str(refused.value)


def test_a_request_that_takes_too_long_is_given_up():
    slow = make_classifier(seconds=0.0)
    begin = time.monotonic()
    with pytest.raises(TooSlow, match="longer than the limit of 0 seconds"):
        slow.certify(some_images(1), n=1_000_000)
    assert time.monotonic() - begin < 5
