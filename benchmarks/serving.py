"""Serving speed: one request of several images, and the same images in requests of one.

Reads what `dvc repro` made. For the reference procedure at several n and for preset radii: the latency of a request
(p50, p95, p99) and images per second, of the classifier that the service asks; each request has fresh noise. The images
of the requests are drawn at random from the test images, the same for all rows. The last column is the speed-up per
image over the reference procedure at --largest-n.
"""

import argparse
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from components import params
from components.certification.classifier import Limits, SmoothedClassifier
from components.certification.preset_radii import certifiable
from components.data.prepared import load_description, load_split
from components.data.streaming import as_tensor, to_unit_interval
from components.evaluation.report import text_table
from components.model import weights
from components.tools.device import use_device
from components.tools.progress import Progress
from pipelines import artifacts


@dataclass(frozen=True)
class Timing:
    """Seconds per request, of requests of `images` images."""

    seconds: list[float]
    images: int

    def percentile(self, share: float) -> float:
        return float(np.percentile(self.seconds, share))

    @property
    def images_per_second(self) -> float:
        return self.images * len(self.seconds) / sum(self.seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sigma", type=float, default=0.5, help="default: %(default)s")
    parser.add_argument("--n", type=int, nargs="+", default=[1000, 10_000], help="default: %(default)s")
    parser.add_argument("--largest-n", type=int, default=100_000, help="also of preset radii (default: %(default)s)")
    parser.add_argument("--radii", type=float, nargs="+", default=[0.25, 0.5, 1.0], help="default: %(default)s")
    parser.add_argument("--images", type=int, default=16, help="images per request (default: %(default)s)")
    parser.add_argument("--requests", type=int, default=10, help="requests per row (default: %(default)s)")
    options = parser.parse_args()
    classifier, requests = load(options)
    recipe = params.load(artifacts.PARAMS)
    failure_prob = recipe.certify.failure_prob
    radii = certifiable(options.radii, options.largest_n, failure_prob, options.sigma, "two_class")
    sizes = sorted({options.largest_n, *options.n}, reverse=True)
    asked: dict[str, dict[str, Any]] = {f"n = {n:,}": {"n": n} for n in sizes}
    asked |= {f"radius {radius:g}": {"n": options.largest_n, "radius": radius} for radius in radii}
    measured = {
        name: measure(classifier, requests, name, {"failure_prob": failure_prob, **arguments})
        for name, arguments in asked.items()
    }
    reference = measured[f"n = {options.largest_n:,}"]
    rows = [row(name, *pair) for name, timings in measured.items() for pair in zip(timings, reference, strict=True)]
    header = [
        "asked",
        "images/request",
        "p50 s",
        "p95 s",
        "p99 s",
        "images/s",
        f"faster than n = {options.largest_n:,}",
    ]
    sizes_said = f"{options.requests} requests of {options.images} images"
    print(f"sigma {options.sigma:g}, failure_prob {failure_prob:g}, {sizes_said}, then the same images one by one")
    print(text_table(header, rows))


def load(options: argparse.Namespace) -> tuple[SmoothedClassifier, list[Tensor]]:
    """The classifier, and the images of each request."""
    network, card = weights.load(artifacts.model(options.sigma), use_device(threads=1))
    classifier = SmoothedClassifier(network, card, limits=Limits(n=options.largest_n, seconds=1e6))
    description, split = load_description(artifacts.DESCRIPTION), load_split(artifacts.TEST_SPLIT)
    drawn = np.random.default_rng(0).integers(len(split.labels), size=(options.requests, options.images))
    images = to_unit_interval(as_tensor(split.images), description.max_value)
    return classifier, [images[torch.from_numpy(indices)] for indices in drawn]


def measure(
    classifier: SmoothedClassifier, requests: list[Tensor], name: str, arguments: dict[str, Any]
) -> list[Timing]:
    """Of the requests as they are, and of their images one by one."""
    alone = [image[None] for request in requests for image in request]
    timings = []
    for what, asked in (("together", requests), ("one by one", alone)):
        seconds = []
        with Progress(f"{name}, {what}", len(asked), "requests") as progress:
            for images in asked:
                begin = time.perf_counter()
                classifier.certify(images, **arguments)
                seconds.append(time.perf_counter() - begin)
                progress.advance()
        timings.append(Timing(seconds, len(asked[0])))
    return timings


def row(name: str, timing: Timing, reference: Timing) -> list[str]:
    percentiles = [f"{timing.percentile(share):.3f}" for share in (50, 95, 99)]
    rate = timing.images_per_second
    return [name, str(timing.images), *percentiles, f"{rate:.1f}", f"{rate / reference.images_per_second:.1f}x"]


if __name__ == "__main__":
    main()
