"""Prepare the data: read the source, check its pixels, enlarge, split, describe. A failure leaves the earlier data."""

from pathlib import Path

from components.data.manifest import Manifest
from components.data.prepared import Description, Split, prepare, save_description, save_split
from components.data.sources import SOURCES
from components.files import replaced
from components.params import Params
from pipelines import artifacts
from pipelines.command import run_stage


def run(params: Params) -> None:
    settings = params.prepare
    train, test, description = prepare(
        SOURCES[settings.source](settings, artifacts.source_root(settings.root)),
        settings.source,
        test_share=settings.test_share,
        enlarge=settings.enlarge,
        seed=params.seed,
    )
    with replaced(artifacts.TRAIN_SPLIT, artifacts.TEST_SPLIT, artifacts.DESCRIPTION) as places:
        write(train, test, description, *places)
    counts = f"{description.train_images} training and {description.test_images} test images"
    print(f"prepared {counts} from {description.origin}")


def write(
    train: Split | Manifest,
    test: Split | Manifest,
    description: Description,
    train_folder: Path,
    test_folder: Path,
    description_path: Path,
) -> None:
    save_split(train, train_folder)
    save_split(test, test_folder)
    save_description(description, description_path)


if __name__ == "__main__":
    run_stage(run, __doc__)
