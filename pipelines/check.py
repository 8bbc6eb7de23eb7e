"""Check params.yaml as a whole, before anything runs."""

from components.model import networks
from components.model.pretrained import read
from components.params import Params, Prepare
from pipelines import artifacts
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


def run(params: Params) -> None:
    networks.check_fit(params.train.network, image_shape(params.prepare))
    for weights in {params.train_at(sigma).weights: None for sigma in params.sigmas}:
        if weights is not None:
            read(weights, params.train.network, artifacts.weights_root())
    levels = ", ".join(params.noise_levels)
    print(
        f"params.yaml is fine: models {params.register.name}-sigma-..., {params.train.network} trained by "
        f"{params.train.method} on {params.prepare.source}, at the noise levels {levels}"
    )


if __name__ == "__main__":
    run_stage(run, __doc__)
