"""Training speed: SmoothMix as this project trains it against a plain step, as published code does it.

Ours runs in bfloat16 where the hardware multiplies in it. The plain step is float32 in PyTorch's default layout, with
one forward per noise in the attack, batches from a DataLoader with worker processes, and the loss read at every step.
Both take the same synthetic images through the same network; they run in turns, each turn some whole batches of 256,
and the medians over the turns count, so that other work on the machine affects both. Prints one JSON line per case, in
images (not noisy ones) per second.
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from statistics import median
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.hardware import has_bfloat16
from components import params
from components.methods import SmoothMix
from components.model import networks
from components.params import Train
from components.tools.device import available_cores, use_device
from components.training.fit import fit
from components.training.optimizer import make_optimizer
from components.training.state import Training
from pipelines import artifacts

BATCH, SIGMA, CLASSES, ATTACK_STEPS = 256, 0.5, 10, 4
CASES = {"lenet": ((1, 28, 28), 4), "resnet20": ((3, 32, 32), 2)}
"""Network: image shape and m, the noises per image."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, action="append", help="default: all")
    parser.add_argument("--turns", type=int, default=7, help="of each of the two (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=available_cores(), help="of both (default: all %(default)s)")
    options = parser.parse_args()
    for case in options.case or CASES:
        print(json.dumps(measure(case, options.turns, options.threads)), flush=True)


def measure(case: str, turns: int, threads: int) -> dict[str, object]:
    """One line of the result."""
    device = use_device(threads)
    shape, m = CASES[case]
    pixels = torch.randint(0, 256, (4 * BATCH, *shape), dtype=torch.uint8)
    labels = torch.randint(0, CLASSES, (4 * BATCH,))
    mix = SmoothMix(m, ATTACK_STEPS, step_size=1.0, mix_weight=5.0, clean_step=1, attack_radius=None)
    recipe = params.load(artifacts.PARAMS).train  # what is not named here does not matter
    settings = replace(
        recipe,
        method="smoothmix",
        network=cast(Any, case),
        epochs=10**6,
        batch_size=BATCH,
        decay_every=10**6,
        warmup_epochs=10,
        threads=threads,
        precision="bfloat16" if has_bfloat16(device) else "float32",
        augment="none",
        smoothmix=mix,
    )
    steps = {
        "ours": ours(build(case).to(device), pixels.to(device), labels.to(device), settings),
        "plain": plain(build(case).to(memory_format=torch.contiguous_format).to(device), pixels, labels, m, device),
    }
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(turns + 1):
        for name, batches in steps.items():
            torch.use_deterministic_algorithms(name == "ours")
            start = time.perf_counter()
            next(batches)
            if turn:  # the first one warms up
                seconds[name].append(time.perf_counter() - start)
    rates = {name: BATCH / median(times) for name, times in seconds.items()}
    return {
        "case": f"smoothmix {case} {'x'.join(map(str, shape))} m {m} T {ATTACK_STEPS}",
        "images_per_s": round(rates["ours"], 2),
        "plain_images_per_s": round(rates["plain"], 2),
        "ratio_plain": round(rates["ours"] / rates["plain"], 3),
        "precision": settings.precision,
        "threads": threads,
        "turns": turns,
        "device": device.type,
    }


def build(case: str) -> nn.Module:
    shape, _ = CASES[case]
    torch.manual_seed(0)
    return networks.build(case, shape, CLASSES, [0.5] * shape[0], [0.25] * shape[0])


def finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def ours(network: nn.Module, pixels: Tensor, labels: Tensor, settings: Train) -> Iterator[None]:
    """Trains on one batch between two yields."""
    training = Training(network, make_optimizer(network, settings))
    steps = fit(training, pixels, labels, max_value=255, sigma=SIGMA, settings=settings, seed=0)
    while True:
        for _ in islice(steps, settings.smoothmix.num_noises):
            pass
        finish(pixels.device)
        yield


def plain(network: nn.Module, pixels: Tensor, labels: Tensor, m: int, device: torch.device) -> Iterator[None]:
    """Trains on one batch between two yields."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    dataset = TensorDataset(pixels.float() / 255, labels)
    loader = DataLoader(dataset, BATCH, shuffle=True, num_workers=2, persistent_workers=True)
    total = 0.0
    while True:
        for images, targets in loader:
            size = len(images) // m
            for group, of_group in zip(images.split(size), targets.split(size), strict=True):
                loss = plain_loss(network, group.to(device), of_group.to(device), m)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                total += loss.item()
            yield


def plain_loss(network: nn.Module, images: Tensor, labels: Tensor, m: int) -> Tensor:
    """SmoothMix with clean_step 1 at full warm-up, step by step."""
    noises = [SIGMA * torch.randn_like(images) for _ in range(m)]
    network.eval()
    path = [images]
    for _ in range(ATTACK_STEPS):
        point = path[-1].detach().requires_grad_()
        smoothed = sum((F.softmax(network(point + noise), dim=1) for noise in noises), torch.zeros(())) / m
        objective = F.nll_loss(smoothed.clamp_min(1e-20).log(), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(objective, point)
        lengths = gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        path.append((point.detach() + gradient / (lengths + 1e-8)).clamp(0, 1))
    network.train()
    clean, adversary = path[1], path[-1]
    logits = network(torch.cat([clean + noise for noise in noises]))
    natural = F.cross_entropy(logits, labels.repeat(m))
    smoothed = torch.stack(logits.softmax(1).chunk(m)).mean(0)
    mixing = torch.rand(len(images), 1, device=images.device) / 2
    weight = mixing[..., None, None]
    mixed = (1 - weight) * clean + weight * adversary
    target = ((1 - mixing) * smoothed + mixing / CLASSES).clamp_min(1e-20).repeat(m, 1)
    predicted = network(torch.cat([mixed + noise for noise in noises])).log_softmax(1)
    divergence = (target * (target.log() - predicted)).sum(1)
    correct = (smoothed.argmax(1) == labels).repeat(m)
    return natural + 5.0 * (correct * divergence).mean()


if __name__ == "__main__":
    main()
