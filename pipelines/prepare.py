"""Prepare the data: read the source, check its pixels, enlarge, split, describe. A failure leaves the earlier data."""

from components.data.prepared import prepare, save_description, save_split
from components.data.sources import SOURCES
from components.params import Params
from components.tools.files import replaced
from pipelines import artifacts
from pipelines.cli import run_stage


def run(params: Params) -> None:
    settings = params.prepare
    train, test, description = prepare(
        SOURCES[settings.source](settings, artifacts.source_root(settings.root)),
        settings.source,
        test_share=settings.test_share,
        enlarge=settings.enlarge,
        seed=params.seed,
    )
    with replaced(artifacts.TRAIN_SPLIT, artifacts.TEST_SPLIT, artifacts.DESCRIPTION) as (
        to_train,
        to_test,
        to_description,
    ):
        save_split(train, to_train)
        save_split(test, to_test)
        save_description(description, to_description)
    counts = f"{description.train_images} training and {description.test_images} test images"
    print(f"prepared {counts} from {description.origin}")


if __name__ == "__main__":
    run_stage(run, __doc__)
