"""Check params.yaml as a whole, before anything runs."""

from components.model import networks
from components.params import Params, Prepare
from components.training.checks import check_method
from pipelines.cli import run_stage


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


def num_classes(prepare: Prepare) -> int | None:
    """The number of classes that a source will give; None where only its files say it."""
    return {"digits": 10, "mnist": 10, "cifar10": 10, "imagenet": 1000}.get(prepare.source)


def run(params: Params) -> None:
    shape, classes = image_shape(params.prepare), num_classes(params.prepare)
    networks.check_fit(params.train.network, shape, classes)
    for sigma in params.sigmas:
        check_method(params.train_at(sigma), sigma, shape, classes or 2)
    levels = ", ".join(params.noise_levels)
    print(
        f"params.yaml is fine: models {params.register.name}-sigma-..., {params.train.network} trained by "
        f"{params.train.method} on {params.prepare.source}, at the noise levels {levels}"
    )


if __name__ == "__main__":
    run_stage(run, __doc__)
