"""Training on a GPU: repeatable, and continued as if nothing had happened."""

import copy
from dataclasses import replace

import pytest
import torch

from components.model import networks
from components.tools.device import use_device
from tests.support.small_training import begin, same_weights, steps_of

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("name", "shape"), [("lenet", (1, 28, 28)), ("resnet20", (3, 32, 32))])
def test_a_training_that_is_interrupted_gives_the_weights_of_one_that_is_not(settings, name, shape, precision):
    device = use_device(threads=1, wanted="cuda")
    torch.manual_seed(0)
    data = tuple(t.to(device) for t in (torch.randint(0, 17, (24, *shape), dtype=torch.uint8), torch.arange(24) % 3))
    settings = replace(settings, network=name, precision=precision)
    first = networks.build(name, shape, 3).to(device)
    whole, part, rest = (begin(copy.deepcopy(first), settings) for _ in range(3))
    for _ in steps_of(whole, data, settings):
        pass
    for _ in steps_of(part, data, settings):
        if part.epoch == 1 and part.step == 2:
            break
    rest.load_state(copy.deepcopy(part.state()))
    for _ in steps_of(rest, data, settings):
        pass
    assert same_weights(rest.network, whole.network)
