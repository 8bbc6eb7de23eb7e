"""Validate the prepared data; a broken expectation stops the pipeline and names the rows."""

from components.data.expectations import check
from components.data.prepared import load_description, load_split_or_manifest
from components.params import Params
from components.tools.files import write_json
from pipelines import artifacts
from pipelines.cli import run_stage


def run(params: Params) -> None:
    description = load_description(artifacts.DESCRIPTION)
    folders = {"train": artifacts.TRAIN_SPLIT, "test": artifacts.TEST_SPLIT}
    splits = {name: load_split_or_manifest(folder) for name, folder in folders.items()}
    broken, report = check(splits, description, min_class_share=params.validate.min_class_share)
    if broken:
        raise ValueError("the prepared data is not fit for training: " + "; ".join(map(str, broken)))
    write_json(artifacts.VALIDATION, report)
    print(f"{len(report['rules'])} expectations hold on {sum(len(split.labels) for split in splits.values())} images")


if __name__ == "__main__":
    run_stage(run, __doc__)
