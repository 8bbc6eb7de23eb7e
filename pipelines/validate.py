"""Validate the prepared data; a broken expectation stops the pipeline and names the rows."""

from components.data.expectations import check_expectations
from components.data.prepared import load_description, load_split_or_manifest
from components.params import Params
from components.tools.files import write_json
from pipelines import artifacts
from pipelines.cli import run_stage


def run(params: Params) -> None:
    description = load_description(artifacts.DESCRIPTION)
    folders = {"train": artifacts.TRAIN_SPLIT, "val": artifacts.VAL_SPLIT, "test": artifacts.TEST_SPLIT}
    splits = {name: load_split_or_manifest(folder) for name, folder in folders.items()}
    if not len(splits["val"]):
        del splits["val"]
    broken, report = check_expectations(splits, description, min_class_share=params.validate.min_class_share)
    if not report["success"]:
        raise ValueError(
            f"the prepared data is not fit for training: {'; '.join(map(str, broken))}: "
            "mend the source, then run dvc repro -f prepare"
        )
    write_json(artifacts.VALIDATION, report)
    for known in broken:
        print(f"part of the published set, and left as it is: {known}")
    holding = len(report["rules"]) - len(broken)
    print(f"{holding} expectations hold on {sum(len(split) for split in splits.values())} images")


if __name__ == "__main__":
    run_stage(run, __doc__)
