"""Measure what training and certification do per second here, by some of their real steps.

What is in the images, how far the network is trained and how large the learning rate is change no time, so random
pixels and an untrained network do. Attacks and deferred losses are at full strength, as after the warm-up.
"""

import math
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from components.certification.sampling import Sampler
from components.certification.side_by_side import Stopping, certify_images
from components.data.prepared import Description
from components.data.streaming import FileSplit, grid_of
from components.params import Certify, Params, Train
from components.tools.device import available_cores, cores_of_this_rank, use_device
from components.training.fit import fit
from components.training.objectives import method_of
from components.training.objectives.catrs import TARGET
from components.training.ranks import Ranks
from components.training.state import EpochStats, Training, begin

PROBE_IMAGES = 4
"""Images in the first, small steps, which tell how many images a step can have in the time that there is."""
BATCHES = 8
"""Loaded batches of random images, where the training has as many images."""
SECONDS_PER_CALL = 0.1
"""What the sampling of one image takes when its speed is measured, as far as whole blocks allow."""


@dataclass(frozen=True)
class Speed:
    """What one noise level does per second on this machine."""

    train_images: float
    """Training images per second, each counted once an epoch; by all processes together."""
    samples: float
    """Noisy copies that are classified per second; by all processes together."""
    block: int
    """Samples in one forward; an image takes whole blocks."""
    memory: int
    """Bytes of this process at most."""
    gpu_memory: int
    """Bytes of the GPU that torch had reserved at most; 0 without a GPU."""
    batch_share: float
    """Share of the batch size that was measured; below 1 where a whole step would have taken too long."""


@dataclass(frozen=True)
class Data:
    """What the images are, and the files that they are decoded from where they are not in memory."""

    description: Description
    files: FileSplit | None = None


def speed(params: Params, sigma: float, data: Data, seconds: float) -> Speed:
    """Train and certify at one noise level for about `seconds`, in equal parts.

    Raises:
        ValueError: a step does not fit into the GPU's memory.
    """
    settings = params.train_at(sigma)
    try:
        device = use_device(settings.threads, settings.device)
        training_rate, share, network, memory = _train(settings, params.seed, sigma, data, device, seconds / 2)
        use_device(threads=1)
        samples, block = _certify(network, params.certify, settings.precision, sigma, data, seconds / 2)
    except torch.OutOfMemoryError:
        raise ValueError(
            f"train.batch_size is {settings.batch_size}: a step at sigma {sigma} does not fit into the memory of the "
            "GPU: lower it, or take a smaller network"
        ) from None
    gpu_memory = torch.cuda.max_memory_reserved() if device.type == "cuda" else 0
    return Speed(training_rate, samples, block, max(memory, peak_memory()), gpu_memory, share)


def _train(
    settings: Train, seed: int, sigma: float, data: Data, device: torch.device, seconds: float
) -> tuple[float, float, nn.Module, int]:
    """Images per second, the share of the batch size that was measured, the network, and bytes with a whole batch."""
    groups = method_of(settings).steps_per_batch
    own = max(groups, settings.batch_size // settings.processes)  # of a batch, one process has its part
    probe = min(own, PROBE_IMAGES * groups)
    at_full_strength = max(settings.epochs, settings.warmup_epochs, (settings.decay_every or 0) + 1)
    endless = replace(settings, epochs=at_full_strength + 10**6, learning_rate=1e-6)  # so that no loss can overflow

    def rate_of(batch_size: int, seconds: float) -> tuple[float, nn.Module]:
        chosen = replace(endless, batch_size=batch_size)
        training = begin(chosen, data.description, seed, device, Ranks())
        training.history = [EpochStats(0, 0.0, 0.0, 0.0, 0.0)] * at_full_strength
        return _rate(_steps(training, chosen, seed, sigma, data, device), device, seconds), training.network

    before = peak_memory()
    rate, _ = rate_of(probe, seconds / 4)
    batch_size = own if own / groups <= 2 * seconds * rate else max(probe, int(2 * seconds * rate) * groups)
    batch_size = min(batch_size, own)
    rate, network = rate_of(batch_size, seconds)
    memory = before + int((peak_memory() - before) * own / batch_size)
    return rate * _side_by_side(settings, device), batch_size / own, network, memory


def _steps(
    training: Training, settings: Train, seed: int, sigma: float, data: Data, device: torch.device
) -> Iterator[int]:
    """The optimiser steps of a training, on its files or on random images."""
    description = data.description
    generator = torch.Generator().manual_seed(0)
    num = min(description.train_images, BATCHES * settings.batch_size)
    pixels: Tensor | FileSplit
    if data.files:
        pixels, labels = data.files, torch.from_numpy(data.files.labels).to(device)
    else:
        labels = torch.randint(len(description.classes), (num,), generator=generator).to(device)
        pixels = random_pixels(description, num, generator).to(torch.uint8).to(device)
    if settings.method == "catrs":
        classes = len(description.classes)
        training.per_image = {TARGET: torch.full((len(labels), classes), 1 / classes, device=device)}
    return fit(
        training,
        pixels,
        labels,
        max_value=description.max_value,
        sigma=sigma,
        settings=settings,
        seed=seed,
        prepare=False,
    )


def random_pixels(description: Description, num: int, generator: torch.Generator) -> Tensor:
    """int32 (num, C, H, W)."""
    size = (num, *description.image_shape)
    return torch.randint(description.max_value + 1, size, generator=generator, dtype=torch.int32)


def _rate(steps: Iterator[int], device: torch.device, seconds: float) -> float:
    """Images per second, without the first step, which sets libraries up, unless it takes the whole time."""
    first, took = _timed(steps, device)
    images, elapsed = (first, took) if took >= seconds else (0, 0.0)
    while elapsed < seconds:
        more, took = _timed(steps, device)
        images, elapsed = images + more, elapsed + took
    return images / elapsed


def _timed(steps: Iterator[int], device: torch.device) -> tuple[int, float]:
    """The images of the next step, and its seconds."""
    start = time.perf_counter()
    done = next(steps)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return done, time.perf_counter() - start


def _side_by_side(settings: Train, device: torch.device) -> float:
    """How many times as fast the processes of a training are together; their messages are not counted."""
    places = torch.cuda.device_count() if device.type == "cuda" else available_cores() / settings.threads
    return max(1.0, min(settings.processes, places))


def _certify(
    network: nn.Module, settings: Certify, precision: str, sigma: float, data: Data, seconds: float
) -> tuple[float, int]:
    """Samples per second, images side by side as the certify stage has them, and the samples of a block."""
    description = data.description
    sampler = Sampler(
        network,
        sigma,
        grid=grid_of(description.max_value),
        image_shape=tuple(description.image_shape),
        num_classes=len(description.classes),
        precision=precision,
        compiled=settings.compile,
        block=settings.block,
    )
    on_gpu = sampler.device.type == "cuda"
    workers = 1 if on_gpu else cores_of_this_rank()
    image = random_pixels(description, 1, torch.Generator().manual_seed(0))[0]
    image = image * (sampler.grid // description.max_value)

    def timed(samples: int, seconds: float, images: int) -> tuple[int, float]:
        """How many images got so many samples, and in how many seconds; at least as many images as workers."""
        start = time.perf_counter()
        stopping = Stopping(time.monotonic() + seconds)
        done = certify_images(
            ((index, image) for index in range(images)),
            lambda image, index: sampler.stream(image, seed=0, index=index).count(samples),
            workers=workers,
            stopping=stopping,
        )
        return sum(1 for _ in done), time.perf_counter() - start

    samples = sampler.block
    done, took = timed(samples, math.inf, workers)  # which also sets libraries up
    if took < seconds:
        _, took = timed(samples, math.inf, workers)
        samples *= max(1, int(SECONDS_PER_CALL / took))
        done, took = timed(samples, seconds, sys.maxsize)
    processes = max(1, min(settings.processes, torch.cuda.device_count())) if on_gpu else 1
    return processes * done * samples / took, sampler.block


def peak_memory() -> int:
    """The most bytes of memory that this process has had."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux, getrusage also counts what the parent had
        lines = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines())
        if "VmHWM" in lines:
            return int(lines["VmHWM"].split()[0]) << 10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10
