"""Check params.yaml as a whole, before anything runs."""

import argparse
import sys

from components.data.sources.array_files import shape_of_arrays
from components.params import Params
from components.prepare import Prepare
from pipelines import artifacts
from pipelines.cli import guard, load_params, program


def image_shape(prepare: Prepare) -> tuple[int, int, int]:
    """Channels, height and width of the images that a source will give; raises ValueError if arrays cannot be read."""
    if prepare.source == "arrays":
        return shape_of_arrays(artifacts.source_root(prepare.root))
    digits = 8 * (prepare.enlarge or 1)
    built_in = {
        "digits": (1, digits, digits),
        "mnist": (1, 28, 28),
        "cifar10": (3, 32, 32),
        "imagenet": (3, 224, 224),
    }
    return built_in.get(prepare.source, (prepare.channels or 3, *prepare.sides))


def num_classes(prepare: Prepare) -> int | None:
    """The number of classes that a source will give; None where only its files say it."""
    return {"digits": 10, "mnist": 10, "cifar10": 10, "imagenet": 1000}.get(prepare.source)


def run(params: Params, cost: bool = False) -> None:
    from components.model import networks  # these import torch, for seconds: only where the parameters are fine
    from components.model.pretrained import read
    from components.training.checks import check_method
    from components.training.targets import check as check_targets

    shape, classes = image_shape(params.prepare), num_classes(params.prepare)
    networks.check_fit(params.train.network, shape, classes)
    for sigma in params.sigmas:
        check_method(params.train_at(sigma), sigma, shape, classes or 2)
        check_targets(params.train_at(sigma), artifacts.weights_root())
    for weights in {params.train_at(sigma).weights: None for sigma in params.sigmas}:
        if weights is not None:
            read(weights, params.train.network, artifacts.weights_root())
    levels = ", ".join(params.noise_levels)
    print(
        f"params.yaml is fine: models {params.register.name}-sigma-..., {params.train.network} trained by "
        f"{params.train.method} on {params.prepare.source}, at the noise levels {levels}"
    )

    if cost:
        from pipelines.cost import run as measure  # which imports all that trains and certifies

        measure(params, shape)


def main() -> None:
    parser = argparse.ArgumentParser(prog=program(), description=__doc__)
    parser.add_argument(
        "--cost",
        action="store_true",
        help="also measure some seconds of training and certification on this machine: says how long each stage and "
        "noise level will take, the peak memory, and what would make it shorter",
    )
    options = parser.parse_args()
    sys.exit(guard(run, load_params(), cost=options.cost))


if __name__ == "__main__":
    main()
