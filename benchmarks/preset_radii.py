"""How many samples a preset radius saves: the sequential procedure against the reference one on the trained models.

Reads what `dvc repro` made. Per noise level, radius and bound both procedures certify the same test images at the same
failure_prob: the reference with n samples for every image, the sequential one with as many as the image needs, at most
n. They get the same samples, drawn once.
"""

import argparse
from itertools import accumulate
from typing import Any, get_args

import numpy as np
from torch import Tensor

from components import params
from components.certification.cohen import certifying
from components.certification.preset_radii import certifiable, check_size, deciding, next_look
from components.certification.sampling import Sampler, answered
from components.certification.side_by_side import certify_images
from components.data.prepared import load_description, load_split
from components.data.streaming import as_tensor, on_grid
from components.evaluation.report import text_table
from components.model import weights
from components.params import Bound
from components.tools.device import available_cores, use_device
from components.tools.progress import Progress
from pipelines import artifacts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--radii", type=float, nargs="+", default=[0.25, 0.5, 1.0], help="default: %(default)s")
    parser.add_argument("--n", type=int, default=100_000, help="default: %(default)s")
    parser.add_argument("--every", type=int, default=5, help="certify every k-th test image (default: %(default)s)")
    options = parser.parse_args()
    check_size(options.n)
    recipe = params.load(artifacts.PARAMS)
    labels = load_split(artifacts.TEST_SPLIT).labels[:: options.every]
    rows = []
    for sigma in recipe.sigmas:
        records = recorded(sigma, recipe, options)
        for bound in get_args(Bound):
            rows += savings(sigma, bound, records, labels, recipe.certify, options)
    header = ["sigma", "bound", "radius", "images", "reference n", "mean n", "fewer", "certified", "sequential"]
    print(
        f"failure_prob {recipe.certify.failure_prob:g}; certified accuracy of the reference and of the sequential one"
    )
    print(text_table([*header, "undecided"], rows))


class Record:
    """The counts of one image's samples up to each look, in the place of the samples."""

    def __init__(self, counts: list[np.ndarray], sizes: list[int]) -> None:
        """Args:
        counts: of the classes among the first samples, the next ones, and so on.
        sizes: how many samples these are.
        """
        self._up_to = dict(zip(accumulate(sizes, initial=0), np.cumsum([0 * counts[0], *counts], axis=0), strict=True))

    def answer(self, procedure: Any) -> Any:
        """What a procedure answers that looks at these looks alone."""
        position = 0

        def count(num: int) -> np.ndarray:
            nonlocal position
            position += num
            difference: np.ndarray = self._up_to[position] - self._up_to[position - num]
            return difference

        return answered(procedure, count)


def recorded(sigma: float, recipe: params.Params, options: argparse.Namespace) -> list[Record]:
    """The samples of each image at one noise level: n0 that select the class, and n fresh ones."""
    description, split = load_description(artifacts.DESCRIPTION), load_split(artifacts.TEST_SPLIT)
    network, card = weights.load(artifacts.model(sigma), use_device(threads=1))
    shape, classes = tuple(card.image_shape), len(card.classes)
    sampler = Sampler(network, sigma, grid=card.grid, image_shape=shape, num_classes=classes, precision=card.precision)
    pixels = as_tensor(split.images)
    indices = range(0, len(split.labels), options.every)
    images = [(index, on_grid(pixels[index], description.max_value, card.grid)) for index in indices]
    sizes, look = [recipe.certify.n0], 0
    while look < options.n:
        sizes.append(next_look(look) - look)
        look = next_look(look)

    def record(image: Tensor, index: int) -> Record:
        stream = sampler.stream(image, seed=recipe.seed, index=index)
        return Record([stream.count(size) for size in sizes], sizes)

    records = []
    with Progress(f"σ={sigma}", len(images), "images") as progress:
        for _, result in certify_images(images, record, workers=available_cores()):
            records.append(result)
            progress.advance()
    return records


def savings(
    sigma: float,
    bound: Bound,
    records: list[Record],
    labels: np.ndarray,
    settings: params.Certify,
    options: argparse.Namespace,
) -> list[list[str]]:
    """One row per radius that n samples can certify at this noise level."""
    facts: dict[str, Any] = {"n0": settings.n0, "failure_prob": settings.failure_prob, "bound": bound}
    reference = [record.answer(certifying(sigma, n=options.n, **facts)) for record in records]
    pairs = zip(reference, labels, strict=True)
    certified_radii = np.array([c.radius if c.predict == label else -1.0 for c, label in pairs])
    facts |= {"max_n": options.n, "reject_prob": settings.sequential.reject_prob}
    rows = []
    for radius in certifiable(options.radii, options.n, settings.failure_prob, sigma, bound):
        answers = [
            record.answer(deciding(sigma, [radius], index=index, **facts)) for index, record in enumerate(records)
        ]
        mean_n = float(np.mean([answer.n for answer in answers]))
        shares = [
            np.mean(certified_radii >= radius),
            np.mean([answer.predict for answer in answers] == labels),
            np.mean([answer.answers[0].decision == "undecided" for answer in answers]),
        ]
        cells = [f"{sigma}", bound, f"{radius:g}", f"{len(labels)}", f"{options.n:,}", f"{mean_n:,.0f}"]
        rows.append([*cells, f"{options.n / mean_n:.1f}x", *(f"{share:.3f}" for share in shares)])
    return rows


if __name__ == "__main__":
    main()
