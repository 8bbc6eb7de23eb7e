"""Check params.yaml as a whole, before anything runs."""

import argparse
import sys

from components.model import networks
from components.params import Params, Prepare
from pipelines.cli import guard, load_params, program


def image_shape(prepare: Prepare) -> tuple[int, int, int]:
    """Channels, height and width of the images that a source will give."""
    channels, side = {
        "digits": (1, 8 * (prepare.enlarge or 1)),
        "mnist": (1, 28),
        "cifar10": (3, 32),
        "imagenet": (3, 224),
        "image_folder": (prepare.channels or 3, prepare.image_size or 1),
    }[prepare.source]
    return channels, side, side


def run(params: Params, cost: bool = False) -> None:
    networks.check_fit(params.train.network, image_shape(params.prepare))
    levels = ", ".join(params.noise_levels)
    print(
        f"params.yaml is fine: models {params.register.name}-sigma-..., {params.train.network} trained by "
        f"{params.train.method} on {params.prepare.source}, at the noise levels {levels}"
    )

    if cost:
        from pipelines.cost import run as measure  # which imports all that trains and certifies

        measure(params, image_shape(params.prepare))


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
