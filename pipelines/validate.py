"""Validate the prepared data; a broken expectation stops the pipeline and names the rows."""

from components.data.expectations import check
from components.data.prepared import load_description, load_split
from components.files import write_json
from components.params import Params
from pipelines import artifacts
from pipelines.command import run_stage


def run(params: Params) -> None:
    description = load_description(artifacts.DESCRIPTION)
    splits = {"train": load_split(artifacts.TRAIN_SPLIT), "test": load_split(artifacts.TEST_SPLIT)}
    broken, report = check(splits, description, min_class_share=params.validate.min_class_share)
    if broken:
        raise ValueError("the prepared data is not fit for training: " + "; ".join(map(str, broken)))
    write_json(artifacts.VALIDATION, report)
    print(f"{len(report['rules'])} expectations hold on {sum(len(split.labels) for split in splits.values())} images")


if __name__ == "__main__":
    run_stage(run, __doc__)
