"""The device's settings, and which GPU a process takes."""

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


@pytest.mark.parametrize(("seen", "rank", "taken"), [(4, "2", 2), (1, "3", 0), (1, None, 0), (4, None, 0)])
def test_a_process_takes_the_gpu_of_its_rank_or_the_only_one_it_sees(monkeypatch, seen, rank, taken):
    """Cluster managers may show each process one GPU alone, which is number 0 whatever the rank."""
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: seen)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: chosen[-1])
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    try:
        assert use_device(threads=1).index == taken
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)


def test_a_gpu_that_is_demanded_and_not_there_is_an_error_and_a_cpu_may_be_demanded(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"device is 'cuda', and torch \S+, built \w+ CUDA.*, sees no GPU: .* or set"):
        use_device(threads=torch.get_num_threads(), wanted="cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert use_device(threads=torch.get_num_threads(), wanted="cpu").type == "cpu"
