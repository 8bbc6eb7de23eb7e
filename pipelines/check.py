"""Check params.yaml as a whole, before anything runs."""

from components.data.sources.array_files import shape_of_arrays
from components.model import networks
from components.params import Params, Prepare
from pipelines import artifacts
from pipelines.cli import run_stage


def image_shape(prepare: Prepare) -> tuple[int, int, int]:
    """Channels, height and width of the images that a source will give; raises ValueError if arrays cannot be read."""
    if prepare.source == "arrays":
        return shape_of_arrays(artifacts.source_root(prepare.root))
    channels, side = {
        "digits": (1, 8 * (prepare.enlarge or 1)),
        "mnist": (1, 28),
        "cifar10": (3, 32),
        "imagenet": (3, 224),
    }.get(prepare.source, (prepare.channels or 3, prepare.image_size or 1))
    return channels, side, side


def run(params: Params) -> None:
    networks.check_fit(params.train.network, image_shape(params.prepare))
    levels = ", ".join(params.noise_levels)
    print(
        f"params.yaml is fine: models {params.register.name}-sigma-..., {params.train.network} trained by "
        f"{params.train.method} on {params.prepare.source}, at the noise levels {levels}"
    )


if __name__ == "__main__":
    run_stage(run, __doc__)
