"""How many samples a preset radius saves: the sequential procedure against the reference one on the trained models.

Reads what `dvc repro` made. Per noise level and radius both procedures certify the same test images at the same
failure_prob: the reference with n samples for every image, the sequential one with as many as the image needs, at most
n. They draw the same noise.
"""

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from components import params
from components.certification.cohen import certifying
from components.certification.preset_radii import RadiiCertificate, certifiable, deciding
from components.certification.sampling import Sampler, answered
from components.certification.side_by_side import certify_images
from components.certification.table import Certificate
from components.data.prepared import load_description, load_split
from components.data.streaming import to_unit_interval
from components.evaluation.report import text_table
from components.model import weights
from components.tools.device import available_cores, use_device
from components.tools.progress import Progress
from pipelines import artifacts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--radii", type=float, nargs="+", default=[0.25, 0.5, 1.0], help="default: %(default)s")
    parser.add_argument("--n", type=int, default=100_000, help="default: %(default)s")
    parser.add_argument("--every", type=int, default=5, help="certify every k-th test image (default: %(default)s)")
    options = parser.parse_args()
    recipe = params.load(artifacts.PARAMS)
    rows = [row for sigma in recipe.sigmas for row in savings(sigma, recipe, options)]
    header = ["sigma", "radius", "images", "reference n", "mean n", "fewer", "certified", "sequential", "undecided"]
    print(
        f"failure_prob {recipe.certify.failure_prob:g}; certified accuracy of the reference and of the sequential one"
    )
    print(text_table(header, rows))


def savings(sigma: float, recipe: params.Params, options: argparse.Namespace) -> list[list[str]]:
    """One row per radius that n samples can certify at this noise level."""
    settings, description = recipe.certify, load_description(artifacts.DESCRIPTION)
    network, card = weights.load(artifacts.model(sigma), use_device(threads=1))
    split = load_split(artifacts.TEST_SPLIT)
    indices = range(0, len(split.labels), options.every)
    pixels = torch.from_numpy(split.images)
    images = [(index, to_unit_interval(pixels[index], description.max_value)) for index in indices]
    shape = tuple(card.image_shape)
    sampler = Sampler(network, sigma, image_shape=shape, num_classes=len(card.classes), precision=card.precision)
    radii = certifiable(options.radii, options.n, settings.failure_prob, sigma)
    facts: dict[str, Any] = {"n0": settings.n0, "failure_prob": settings.failure_prob}

    def reference(image: Tensor, index: int) -> Certificate:
        procedure = certifying(sigma, n=options.n, **facts)
        return answered(procedure, sampler.stream(image, seed=recipe.seed, index=index).count)

    def sequential(image: Tensor, index: int) -> RadiiCertificate:
        reject_prob = settings.sequential.reject_prob
        procedure = deciding(sigma, [radius], max_n=options.n, reject_prob=reject_prob, index=index, **facts)
        return answered(procedure, sampler.stream(image, seed=recipe.seed, index=index).count)

    def run(procedure: Callable[[Tensor, int], Any], what: str) -> list[Any]:
        with Progress(f"σ={sigma}, {what}", len(images), "images") as progress:
            certificates = []
            for _, certificate in certify_images(images, procedure, workers=available_cores()):
                certificates.append(certificate)
                progress.advance()
        return certificates

    rows, labels = [], split.labels[:: options.every]
    pairs = zip(run(reference, "reference"), labels, strict=True)
    certified_radii = [c.radius if c.predict == label else -1.0 for c, label in pairs]
    for radius in radii:
        answers = run(sequential, f"radius {radius:g}")
        mean_n = float(np.mean([answer.n for answer in answers]))
        shares = [
            np.mean(np.array(certified_radii) >= radius),
            np.mean([answer.predict for answer in answers] == labels),
            np.mean([answer.answers[0].decision == "undecided" for answer in answers]),
        ]
        cells = [f"{sigma}", f"{radius:g}", f"{len(images)}", f"{options.n:,}", f"{mean_n:,.0f}"]
        rows.append([*cells, f"{options.n / mean_n:.1f}x", *(f"{share:.3f}" for share in shares)])
    return rows


if __name__ == "__main__":
    main()
