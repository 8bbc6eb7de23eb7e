"""Gives each stage its GPUs or its turn, so that stages that run at the same time do not share a device.

With GPUs, a training or certification gets one GPU per process and the same share of the cores, and waits until they
are free. Without a GPU, trainings run side by side as long as there are cores for their threads; certifications run one
after the other, because each keeps all cores busy.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from components.params import Params
from components.tools.device import available_cores
from pipelines.operation.dvc_stages import EVERYWHERE, Place

VISIBLE = "CUDA_VISIBLE_DEVICES"


class Places:
    """The GPUs or cores of this machine, shared by the stages of one flow."""

    def __init__(self, params: Params) -> None:
        self._params, self._gpus = params, visible_gpus()
        self._free, self._changed = list(self._gpus), threading.Condition()
        cores = available_cores() // (params.train.threads * params.train.processes)
        self._turns = {"train": threading.Semaphore(max(1, cores)), "certify": threading.Semaphore(1)}

    def take(self, stage: str) -> AbstractContextManager[Place]:
        """Within the block, a stage has a place of its own; entering it waits until one is free."""
        kind = stage.split("@")[0]
        if kind not in self._turns:
            return nullcontext(EVERYWHERE)
        return self._take_gpus(kind) if self._gpus else self._take_turn(kind)

    @contextmanager
    def _take_turn(self, kind: str) -> Iterator[Place]:
        with self._turns[kind]:
            yield EVERYWHERE

    @contextmanager
    def _take_gpus(self, kind: str) -> Iterator[Place]:
        processes = {"train": self._params.train.processes, "certify": self._params.certify.processes}[kind]
        count = min(processes, len(self._gpus))  # if there are too few, the stage itself says so
        with self._changed:
            self._changed.wait_for(lambda: len(self._free) >= count)
            taken, self._free = self._free[:count], self._free[count:]
        try:
            yield Place({VISIBLE: ",".join(taken)}, self._cores_beside(taken))
        finally:
            with self._changed:
                self._free = [gpu for gpu in self._gpus if gpu in {*self._free, *taken}]
                self._changed.notify_all()

    def _cores_beside(self, gpus: list[str]) -> frozenset[int] | None:
        """These GPUs' share of the cores, which decode images for them."""
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        if len(cores) < len(self._gpus):
            return None
        places = [self._gpus.index(gpu) for gpu in gpus]
        return frozenset(core for i, core in enumerate(cores) if i % len(self._gpus) in places)


def visible_gpus() -> list[str]:
    """The GPUs of this machine that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    count = torch.cuda.device_count()
    if named := os.environ.get(VISIBLE):
        return [name.strip() for name in named.split(",")][:count]
    return [str(number) for number in range(count)]
