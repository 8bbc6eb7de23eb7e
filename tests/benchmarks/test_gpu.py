"""The check of a GPU: all that it does, on a CPU and on little; what needs a GPU is left to one."""

import sys
import time
from argparse import Namespace

import pytest
import torch

from benchmarks import gpu
from components.tools.device import use_device
from components.tools.files import read_json


@pytest.fixture
def cpu():
    """The device with the settings of a training, which are undone after."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield use_device(1, "cpu")
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


def test_the_error_of_one_part_is_told_and_the_others_follow(tmp_path, capsys):
    parts = {"one": lambda: 1 / 0, "two": lambda: {"rate": 2}}
    found = gpu.collect(parts, tmp_path / "found.json")
    assert found["parts"]["one"]["error"] == "ZeroDivisionError: division by zero"
    assert found["parts"]["two"]["found"] == {"rate": 2}
    assert gpu.failed(found) == ["one"]
    assert read_json(tmp_path / "found.json", "") == found
    assert {"git_commit", "gpu", "processor", "torch", "python", "cuda", "seed"} < set(found)


def test_what_was_found_is_kept_though_a_later_part_is_killed(tmp_path):
    def killed():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gpu.collect({"one": lambda: 1, "two": killed}, tmp_path / "found.json")
    assert list(read_json(tmp_path / "found.json", "")["parts"]) == ["one"]


def test_the_noise_of_the_device_is_compared_with_the_reference(cpu, monkeypatch):
    assert gpu.exact_noise(cpu, [(1, 4, 5)]) == "as the reference"
    drawn = gpu.noisy_copies

    def other(*arguments, **key):
        copies, lost = drawn(*arguments, **key)
        return copies.nextafter(copies + 1), lost

    monkeypatch.setattr(gpu, "noisy_copies", other)
    with pytest.raises(ValueError, match=r"\(1, 4, 5\) at sample 0 is not the reference's"):
        gpu.exact_noise(cpu, [(1, 4, 5)])


@pytest.mark.medium
def test_a_training_with_a_stop_is_compared_with_one_without(cpu, monkeypatch):
    assert gpu.resumed(cpu, images=4) == "the same weights after 8 steps"
    load = gpu.Training.load_state
    monkeypatch.setattr(gpu.Training, "load_state", lambda self, state: load(self, state | {"losses": torch.zeros(0)}))
    with pytest.raises(ValueError, match="not those of a training without a stop"):
        gpu.resumed(cpu, images=4)


def test_the_fastest_block_is_named_among_those_that_the_memory_holds(cpu, monkeypatch):
    monkeypatch.setitem(gpu.BLOCKS, "lenet", ((1, 28, 28), [2, 5, 10]))
    assert set(gpu.by_block(cpu, "lenet", turns=1)["samples_per_s"]) == {"2", "5", "10"}

    def rate(sampler, image, turns):
        if sampler.block == 10:
            raise torch.OutOfMemoryError
        return 100 * sampler.block

    monkeypatch.setattr(gpu, "samples_per_second", rate)
    assert gpu.by_block(cpu, "lenet") == {
        "samples_per_s": {"2": 200, "5": 500, "10": "out of memory"},
        "most_at": 5,
    }


@pytest.mark.medium
def test_the_speed_of_certification_is_measured_beside_a_plain_loop(cpu):
    few = Namespace(**vars(gpu.SAMPLED) | {"n": 100, "images": 1, "turns": 1})
    found = gpu.certification.measure("lenet", few)
    assert found["samples_per_s"] > 0 < found["plain_samples_per_s"]


@pytest.mark.slow
def test_the_speed_of_training_is_measured_beside_a_plain_loop(cpu):
    found = gpu.training.measure("lenet", 1, 1)
    assert found["images_per_s"] > 0 < found["plain_images_per_s"]


@pytest.mark.slow
@pytest.mark.medium
def test_the_run_of_the_recipe_tells_its_figures_or_how_far_it_came(tmp_path):
    small = ["--recipe", "recipes/digits.yaml", "--epochs", "1", "--set", "certify.n=200", "certify.every=40"]
    assert gpu.mnist(tmp_path / "run", 1e-4, None, *small)["finished"] is False
    done = gpu.mnist(tmp_path / "run", 5, None, *small)
    assert done["finished"]
    assert 0 <= done["metrics.json"]["0.5"]["acr"] <= 2
    with pytest.raises(ValueError, match=r"benchmarks\.published exited with 2"):
        gpu.mnist(tmp_path / "run", 5, None, "--recipe", str(tmp_path))


def test_a_run_that_no_time_is_left_for_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="the time was over"):
        gpu.mnist(tmp_path / "run", 0, None)


def test_without_a_gpu_one_sentence_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu", "--out", str(tmp_path / "found.json")])
    assert gpu.main() == 1
    assert (
        capsys.readouterr().err
        == "error: torch sees no GPU here: look at what nvidia-smi says, or run this elsewhere\n"
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.medium
def test_the_tests_that_need_a_gpu_are_run(monkeypatch):
    assert "passed" in gpu.tested(time.monotonic() + 300) or "skipped" in gpu.tested(time.monotonic() + 300)
    monkeypatch.setattr(gpu, "TESTS", ["tests/no_such_test.py"])
    with pytest.raises(ValueError, match="pytest exited with 4"):
        gpu.tested(time.monotonic() + 300)
