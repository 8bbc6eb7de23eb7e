"""The device's settings."""

import pytest
import torch

from components.tools.device import use_device


@pytest.fixture(params=[torch.backends.cudnn.conv, torch.backends.cuda.matmul], ids=["convolutions", "products"])
def operation(request):
    """What torch may round to TF32 on a GPU, as it does by default in convolutions."""
    before = request.param.fp32_precision
    request.param.fp32_precision = "tf32"
    yield request.param
    request.param.fp32_precision = before


def test_float32_is_float32_on_a_gpu_too(operation):
    use_device(threads=torch.get_num_threads())
    assert operation.fp32_precision == "ieee"
