"""Stages that run at the same time have a device, or cores, of their own."""

import os
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from components import params as parameters
from pipelines.operation import places
from pipelines.operation.dvc_stages import EVERYWHERE, ProcessGroups
from pipelines.operation.places import Places, visible_gpus

PARAMS = parameters.load(Path(__file__).parents[2] / "params.yaml")
LOOK = "import os; print(os.environ.get('CUDA_VISIBLE_DEVICES'), sorted(os.sched_getaffinity(0)))"


@pytest.fixture
def gpus(monkeypatch):
    """Sets how many GPUs there seem to be."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return lambda count: monkeypatch.setattr(places.torch.cuda, "device_count", lambda: count)


@pytest.fixture
def cores(monkeypatch):
    """Sets which cores this process seems to have."""
    return lambda numbers: monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(numbers))


def side_by_side(shared, stages):
    """Run stages at once, a moment each; the most that ran together, and the places that they had."""
    running, most, had, lock = 0, 0, [], threading.Lock()

    def run(stage):
        nonlocal running, most
        with shared.take(stage) as place:
            with lock:
                running += 1
                most = max(most, running)
                had.append(place)
            time.sleep(0.2)
            with lock:
                running -= 1

    threads = [threading.Thread(target=run, args=(stage,)) for stage in stages]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return most, had


def test_each_of_several_gpus_has_one_stage_and_a_share_of_the_cores(gpus, cores):
    gpus(2)
    cores(range(10, 16))
    most, had = side_by_side(Places(PARAMS), ["train@0.25", "train@0.5", "certify@1.0", "certify@0.25"])
    assert most == 2
    assert {(place.environment["CUDA_VISIBLE_DEVICES"], place.cores) for place in had} == {
        ("0", frozenset({10, 12, 14})),
        ("1", frozenset({11, 13, 15})),
    }


@pytest.mark.medium
def test_with_one_gpu_trainings_and_certifications_take_turns_with_all_cores(gpus, cores):
    gpus(1)
    cores(range(4))
    most, had = side_by_side(Places(PARAMS), ["train@0.25", "train@0.5", "certify@1.0"])
    assert most == 1
    assert {place.cores for place in had} == {frozenset(range(4))}


def test_a_stage_of_several_processes_has_as_many_gpus(gpus):
    gpus(4)
    params = replace(PARAMS, train=replace(PARAMS.train, processes=3))
    shared = Places(params)
    with shared.take("train@0.5") as training, shared.take("certify@0.5") as certification:
        assert training.environment == {"CUDA_VISIBLE_DEVICES": "0,1,2"}
        assert certification.environment == {"CUDA_VISIBLE_DEVICES": "3"}
    with Places(replace(params, train=replace(params.train, processes=8))).take("train@0.5") as everything:
        assert everything.environment == {"CUDA_VISIBLE_DEVICES": "0,1,2,3"}


@pytest.mark.medium
def test_without_a_gpu_certifications_take_turns_and_trainings_share_the_cores(gpus, cores):
    gpus(0)
    cores(range(4))
    assert side_by_side(Places(PARAMS), [f"certify@{i}" for i in range(3)]) == (1, [EVERYWHERE] * 3)
    wide = replace(PARAMS, train=replace(PARAMS.train, threads=2))
    assert side_by_side(Places(wide), [f"train@{i}" for i in range(4)])[0] == 2
    assert side_by_side(Places(replace(wide, train=replace(wide.train, threads=9))), ["train@1", "train@2"])[0] == 1
    assert side_by_side(Places(PARAMS), ["validate", "certify@0.5", "evaluate"])[0] == 3  # the others wait for nothing


def test_gpus_are_named_as_the_environment_names_them(gpus, monkeypatch):
    gpus(2)
    assert visible_gpus() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, GPU-3f")
    assert visible_gpus() == ["5", "GPU-3f"]


def test_a_process_sees_its_place_alone_and_the_next_one_everything(tmp_path):
    ours = sorted(os.sched_getaffinity(0))
    place = places.Place({"CUDA_VISIBLE_DEVICES": "1"}, frozenset(ours[-1:]))
    look = [sys.executable, "-c", LOOK]
    assert ProcessGroups().run("certify@0.5", look, tmp_path, print, place=place) == [f"1 {ours[-1:]}"]
    assert ProcessGroups().run("validate", look, tmp_path, print)[0].endswith(f" {ours}")
    assert sorted(os.sched_getaffinity(0)) == ours
