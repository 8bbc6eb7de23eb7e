"""Prepare the data: read the source, check its pixels, enlarge, split, describe."""

from components.data.prepared import prepare, save_description, save_split
from components.data.sources import SOURCES
from components.params import Params
from pipelines import artifacts
from pipelines.command import run_stage


def run(params: Params) -> None:
    settings = params.prepare
    train, test, description = prepare(
        SOURCES[settings.source](),
        settings.source,
        test_share=settings.test_share,
        enlarge=settings.enlarge,
        seed=params.seed,
    )
    save_split(train, artifacts.TRAIN_SPLIT)
    save_split(test, artifacts.TEST_SPLIT)
    save_description(description, artifacts.DESCRIPTION)
    counts = f"{description.train_images} training and {description.test_images} test images"
    print(f"prepared {counts} from {description.origin}")


if __name__ == "__main__":
    run_stage(run, __doc__)
