"""Check params.yaml as a whole, before anything runs."""

from components.model import networks
from components.params import Params, Prepare
from pipelines.cli import run_stage


def image_shape(prepare: Prepare) -> tuple[int, int, int]:
    """Channels, height and width of the images that a source will give."""
    digits = 8 * (prepare.enlarge or 1)
    return {
        "digits": (1, digits, digits),
        "mnist": (1, 28, 28),
        "cifar10": (3, 32, 32),
        "imagenet": (3, 224, 224),
        "image_folder": (prepare.channels or 3, *prepare.sides),
    }[prepare.source]


def run(params: Params) -> None:
    networks.check_fit(params.train.network, image_shape(params.prepare))
    levels = ", ".join(params.noise_levels)
    print(
        f"params.yaml is fine: models {params.register.name}-sigma-..., {params.train.network} trained by "
        f"{params.train.method} on {params.prepare.source}, at the noise levels {levels}"
    )


if __name__ == "__main__":
    run_stage(run, __doc__)
