"""Estimates what the ImageNet experiments would cost on this machine, from throughputs measured here.

Measures ResNet-50 at 224x224 on synthetic images by recipes/imagenet.yaml: training steps of each method, decoding of
photographs as files, and noisy samples in certification. It extrapolates to 1,281,167 training images and to 500 and
50,000 certified ones, and needs no real data. Prints one JSON line per measurement; --out keeps the lines for
`python -m benchmarks.published page`.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader

from benchmarks.certification import GRID, N0, certify_ours
from benchmarks.hardware import has_bfloat16
from benchmarks.training import finish
from components import params
from components.certification.sampling import Sampler
from components.data.manifest import Manifest
from components.data.streaming import FileSplit, TrainingView
from components.model import networks
from components.params import Params
from components.tools.device import available_cores, use_device
from components.tools.files import write_text
from components.tools.hashing import hash_file
from components.tools.provenance import provenance
from components.training.fit import fit
from components.training.objectives import OBJECTIVES, method_of
from components.training.optimizer import make_optimizer
from components.training.state import Training

RECIPE = Path(__file__).parents[1] / "recipes/imagenet.yaml"
SHAPE, CLASSES, TRAINING_IMAGES = (3, 224, 224), 1000, 1_281_167
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
PHOTOGRAPH, PHOTOGRAPHS = (500, 375), 256
"""Width and height of an average picture of ImageNet, and how many are decoded."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=OBJECTIVES, default=["gaussian", "smoothmix"])
    parser.add_argument("--batch-size", type=int, default=256, help="fewer for less memory (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=2000, help="noisy samples to time (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=3, help="of which the median counts (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="keep the lines in this file, such as results/imagenet_cost.jsonl")
    options = parser.parse_args()
    lines = []
    for line in measurements(params.load(RECIPE), options):
        lines.append(json.dumps(line))
        print(lines[-1], flush=True)
    if options.out:
        write_text(options.out, "\n".join(lines) + "\n")


def measurements(recipe: Params, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    device = use_device(available_cores())
    precision = recipe.train.precision if has_bfloat16(device) else "float32"
    facts = {"precision": precision, "cores": available_cores(), **provenance()}
    decoding = decoded_per_s()
    yield {"measured": "decoding", "images_per_s": round(decoding, 1), **facts}
    for method in options.methods:
        recipe_of_method = replace(recipe.train_at(recipe.sigmas[0]), method=cast(Any, method))
        settings = replace(recipe_of_method, precision=cast(Any, precision), batch_size=options.batch_size)
        rate = trained_per_s(settings, recipe.sigmas[0], options.turns, device)
        hours = settings.epochs * TRAINING_IMAGES / min(rate, decoding) / 3600
        yield {"measured": f"training, {method}", "images_per_s": round(rate, 2), "hours": round(hours), **facts}
    rate = certified_per_s(precision, recipe.sigmas[0], options.samples, options.turns, device)
    for images in (500, 50_000):
        hours = images * (recipe.certify.n0 + recipe.certify.n) / rate / 3600
        yield {"measured": f"certification of {images:,} images, n = {recipe.certify.n:,}"} | {
            "samples_per_s": round(rate, 1),
            "hours": round(hours),
            **facts,
        }


def decoded_per_s() -> float:
    """Training views of photographs per second, with one worker process per core."""
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        paths, hashes = [], []
        for number in range(PHOTOGRAPHS):
            coarse = generator.integers(0, 256, (24, 32, 3), dtype=np.uint8)  # smooth, as photographs are
            path = Path(folder) / f"{number}.jpg"
            Image.fromarray(coarse).resize(PHOTOGRAPH, Image.Resampling.BICUBIC).save(path, quality=95)
            paths.append(path.name)
            hashes.append(hash_file(path))
        split = FileSplit(Manifest(paths, np.zeros(PHOTOGRAPHS, dtype=np.int64), hashes), Path(folder))
        rates = []
        for epoch in range(3):
            loader = DataLoader(TrainingView(split, 0, epoch), batch_size=16, num_workers=available_cores())
            start = time.perf_counter()
            for _ in loader:
                pass
            rates.append(PHOTOGRAPHS / (time.perf_counter() - start))
    return statistics.median(rates)


def trained_per_s(settings: params.Train, sigma: float, turns: int, device: torch.device) -> float:
    """Images of the data set (not noisy ones) per second."""
    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (settings.batch_size, *SHAPE), dtype=torch.uint8, device=device)
    labels = torch.randint(0, CLASSES, (settings.batch_size,), device=device)
    network = networks.build("resnet50", SHAPE, CLASSES, MEAN, STD).to(device)
    training = Training(network, make_optimizer(network, settings))
    steps = fit(training, pixels, labels, max_value=255, sigma=sigma, settings=settings, seed=0)
    per_turn = method_of(settings).steps_per_batch
    seconds = [timed(lambda: sum(islice(steps, per_turn)), device) for _ in range(turns + 1)]
    return settings.batch_size / statistics.median(seconds[1:])  # the first one warms up


def certified_per_s(precision: str, sigma: float, samples: int, turns: int, device: torch.device) -> float:
    """Noisy samples per second, of as many images side by side as the certify stage takes."""
    torch.manual_seed(0)
    network = networks.build("resnet50", SHAPE, CLASSES, MEAN, STD).to(device)
    options: dict[str, Any] = {"image_shape": SHAPE, "num_classes": CLASSES, "precision": precision}
    sampler = Sampler(network, sigma, grid=GRID, **options, compiled=True)
    side_by_side = 1 if device.type == "cuda" else available_cores()
    images = torch.randint(GRID + 1, (side_by_side, *SHAPE), dtype=torch.int32)
    seconds = [timed(lambda: certify_ours(sampler, images, samples), device) for _ in range(turns + 1)]
    return len(images) * (N0 + samples) / statistics.median(seconds[1:])


def timed(work: Any, device: torch.device) -> float:
    start = time.perf_counter()
    work()
    finish(device)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
