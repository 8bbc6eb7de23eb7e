"""Prepare the data: read the source, check its pixels, enlarge, split, describe.

Data is replaced as a whole: a failure leaves the earlier data in place. Under DVC there is none, because DVC removes a
stage's outputs before it runs the command; the earlier data is then in DVC's cache.
"""

import os
from pathlib import Path

from components.data.prepared import Description, prepare, save_description, save_split
from components.data.sources import SOURCES
from components.data.validation_split import validation_split
from components.params import Params
from components.tools.files import replaced
from components.tools.wording import counted
from pipelines import artifacts
from pipelines.cli import run_stage


def run(params: Params) -> None:
    try:
        description, validation = prepare_and_save(params)
    except (ValueError, OSError) as error:
        raise ValueError(f"{error}{how_to_get_earlier_data()}") from None
    tests = counted(description.test_images, "test images")
    depth = " with 16 bits" if description.max_value > 255 else ""
    both = f"{description.train_images} training{f', {validation} validation' if validation else ''} and {tests}{depth}"
    print(f"prepared {both} from {description.origin}")


def prepare_and_save(params: Params) -> tuple[Description, int]:
    """The description, and how many images are for validation."""
    settings = params.prepare
    source = SOURCES[settings.source](settings, artifacts.source_root(settings.root))
    train, test, description = prepare(
        source,
        settings.source,
        test_share=settings.test_share,
        enlarge=settings.enlarge,
        seed=params.seed,
    )
    val = validation_split(source, description)
    paths = (artifacts.TRAIN_SPLIT, artifacts.VAL_SPLIT, artifacts.TEST_SPLIT, artifacts.DESCRIPTION)
    try:
        with replaced(*paths) as (to_train, to_val, to_test, to_description):
            save_split(train, to_train)
            save_split(val, to_val)
            save_split(test, to_test)
            save_description(description, to_description)
    except OSError as error:
        folder = artifacts.DESCRIPTION.parent.absolute()
        raise ValueError(f"{folder} cannot be written ({error.strerror or error}): make room or give access") from None
    return description, len(val)


def how_to_get_earlier_data() -> str:
    """How to restore the earlier data, if DVC runs this stage and has removed it; else empty."""
    lock = Path("dvc.lock")
    if "DVC_STAGE" not in os.environ or not lock.exists():
        return ""
    had_data = str(artifacts.DESCRIPTION) in lock.read_text(encoding="utf-8")
    return f"; DVC removed the earlier data: `dvc checkout prepare` in {Path.cwd()} brings it back" if had_data else ""


if __name__ == "__main__":
    run_stage(run, __doc__)
