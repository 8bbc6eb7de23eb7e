"""Training methods of a user's own: the same door as ours, tried before the first step."""

from dataclasses import replace

import pytest
import torch

from components.params import Train
from components.training.checks import check_method
from components.training.draws import Draws
from components.training.objectives import method_of
from components.training.order import steps_of_epoch
from tests.support.own_code import project, write

__all__ = ["project"]
SHAPE, CLASSES, SIGMA = (1, 8, 8), 3, 0.5
METHOD = """
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal
from torch.nn import functional as F
from components.parsing import Count, Range

@dataclass(frozen=True)
class Own:
    {fields}

def objective(network, images, labels, *, sigma, settings, epoch, draws, own: Own):
    {body}
"""
FIELDS = "weight: Annotated[float, Range(least=0)] = 1.0"
GAUSSIAN = """logits = network(images + sigma * draws.normal(1, images)[0])
    return F.cross_entropy(logits.float(), labels), logits[None]"""


def own(settings: Train, folder, fields=FIELDS, body=GAUSSIAN, **section) -> Train:
    """Settings with a method of the user's own."""
    write(folder, mine=METHOD.format(fields=fields, body=body))
    return replace(settings, method="mine:objective", own_method=section)


def test_gaussian_training_as_an_own_method_is_gaussian_training_bit_for_bit(project, settings):
    chosen = own(settings, project, weight=2)
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, CLASSES))
    images, labels = torch.rand(6, *SHAPE), torch.arange(6) % CLASSES
    losses = []
    for method in (method_of(chosen), method_of(replace(settings, method="gaussian"))):
        told = {"sigma": SIGMA, "settings": chosen, "epoch": 0, "draws": Draws(0, 0, 0, torch.device("cpu"))}
        losses.append(method.objective(network, images, labels, **told, own=method.own)[0])
    assert torch.equal(*losses)
    assert method_of(chosen).own.weight == 2.0
    assert method_of(chosen).steps_per_batch == 1


def test_splits_batch_splits_a_loaded_batch_into_steps(project, settings):
    fields = "splits_batch: ClassVar = True\n    num_noises: Count = 4"
    chosen = replace(own(settings, project, fields), batch_size=12)
    steps = list(steps_of_epoch(24, 0, chosen, 0, torch.device("cpu")))
    assert [len(rows) for rows in steps] == [3] * 8
    with pytest.raises(ValueError, match=r"train\.batch_size is 3: must be >= own_method\.num_noises 4"):
        method_of(replace(chosen, batch_size=3))


REFUSED = {
    "unknown key": ({"wait": 1}, {}, "own_method.wait is 1: unknown key, allowed are weight"),
    "out of range": ({"weight": -1}, {}, "own_method.weight is -1.0: must be >= 0"),
    "missing": ({}, {"fields": "weight: float"}, "own_method.weight is missing: a number"),
    "type that params.yaml has not": ({"w": 1}, {"fields": "w: bytes = b''"}, "Own has a field of a type that"),
    "split into nothing": ({}, {"fields": "splits_batch: ClassVar = True"}, "it needs a field num_noises"),
    "error in it": ({}, {"body": "return {}[0]"}, r"fails on random images: KeyError: 0 \(mine.py:12\)"),
    "no logits": ({}, {"body": "return network(images).sum()"}, r"gives \(\) and NoneType for 4 images of 3 classes"),
    "loss per image": (
        {},
        {"body": "z = network(images)\n    return F.cross_entropy(z, labels, reduction='none'), z[None]"},
        r"gives \(4,\) and \(1, 4, 3\) .* must give the loss, a number with a gradient",
    ),
    "logits without noises": (
        {},
        {"body": "z = network(images)\n    return F.cross_entropy(z, labels), z"},
        r"the logits of the noisy images \(m, 4, 3\)",
    ),
    "no gradient": (
        {},
        {"body": "z = network(images).detach()\n    return F.cross_entropy(z, labels), z[None]"},
        "a number with a gradient",
    ),
}


@pytest.mark.parametrize(("section", "parts", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_train_is_refused_in_one_line(project, settings, section, parts, words):
    chosen, state = own(settings, project, **parts, **section), torch.get_rng_state()
    with pytest.raises(ValueError, match=words) as refused:
        check_method(chosen, SIGMA, SHAPE, CLASSES)
    assert str(refused.value).startswith("train.method is 'mine:objective': ")
    assert "\n" not in str(refused.value)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("objective = 3", r"is of type int, must be a function of \(network, images, labels, \*, sigma"),
        ("def objective(network, images): pass", r"must take the arguments .*: too many positional arguments"),
        ("def objective(network, images, labels, **rest): pass", "is not annotated with a dataclass"),
        ("objectiv = 1", "mine has no objective"),
    ],
)
def test_a_function_of_another_form_is_refused(project, settings, source, words):
    write(project, mine=source)
    with pytest.raises(ValueError, match=words):
        method_of(replace(settings, method="mine:objective", own_method={"weight": 1}))


def test_a_good_one_passes_and_draws_nothing(project, settings):
    state = torch.get_rng_state()
    check_method(own(settings, project), SIGMA, SHAPE, CLASSES)
    assert torch.equal(torch.get_rng_state(), state)
