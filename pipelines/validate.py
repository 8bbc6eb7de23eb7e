"""Validate the prepared data and show it on a page; a broken expectation stops the pipeline and names the rows."""

import numpy as np

from components.data.expectations import Place, check_expectations
from components.data.manifest import Manifest
from components.data.page.render import render
from components.data.page.shown import Images
from components.data.prepared import Description, Split, load_description, load_split_or_manifest
from components.params import Params
from components.tools.files import write_json, write_text
from pipelines import artifacts
from pipelines.cli import run_stage


def run(params: Params) -> None:
    description = load_description(artifacts.DESCRIPTION)
    folders = {"train": artifacts.TRAIN_SPLIT, "val": artifacts.VAL_SPLIT, "test": artifacts.TEST_SPLIT}
    splits = {name: load_split_or_manifest(folder) for name, folder in folders.items()}
    if not len(splits["val"]):
        del splits["val"]
    min_class_share = params.validate.min_class_share
    broken, report = check_expectations(splits, description, min_class_share=min_class_share)
    page = render(
        description,
        splits,
        broken,
        report,
        sigmas={key: float(key) for key in params.noise_levels},
        min_class_share=min_class_share,
        image=image_reader(params, description, splits),
    )
    write_text(artifacts.DATA_PAGE, page)
    if not report["success"]:
        raise ValueError(
            f"the prepared data is not fit for training: {'; '.join(map(str, broken))}: "
            f"look at {artifacts.DATA_PAGE}, mend the source, then run dvc repro -f prepare"
        )
    write_json(artifacts.VALIDATION, report)
    for known in broken:
        print(f"part of the published set, and left as it is: {known}")
    holding = len(report["rules"]) - len(broken)
    print(f"{holding} expectations hold on {sum(len(split) for split in splits.values())} images")
    print(f"page: {artifacts.DATA_PAGE}")


def image_reader(params: Params, description: Description, splits: dict[str, Split | Manifest]) -> Images:
    """Reads images that may be broken."""
    root = artifacts.source_root(params.prepare.root)

    def image(place: Place) -> np.ndarray:
        split = splits[place.split]
        if isinstance(split, Manifest):
            from components.data.streaming import FileSplit  # imports torch: only where images stay in files

            return FileSplit(split, root).image(place.number) / description.max_value
        if place.number >= len(split.images):
            raise ValueError("there is none of this number")
        pixels = split.image(place.number)
        if pixels.ndim != 3:
            raise ValueError(f"its shape is {list(pixels.shape)}")
        return np.nan_to_num(pixels.astype(float)) / description.max_value

    return image


if __name__ == "__main__":
    run_stage(run, __doc__)
