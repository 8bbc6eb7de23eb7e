"""What MLflow and a lookup say of a table: both ACRs by name, bound, arithmetic and the distribution of p_lower."""

import gzip
import json
import shutil
from pathlib import Path

import mlflow
import pytest
import yaml
from mlflow.entities.model_registry import ModelVersion, ModelVersionTag

from components import params as parameters
from components.model.card import load_card
from components.registry.tracking import Tracking
from components.registry.versions import described
from pipelines import artifacts, evaluate, lookup, register

KEPT = Path(__file__).parents[2] / "results/digits/smoothmix/1.0"


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """A workspace that the stages before register have filled, with a kept run."""
    folder = tmp_path_factory.mktemp("evaluated")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        shutil.copytree(KEPT / "outputs", "outputs")
        tables = artifacts.certificates(1.0).parent
        (tables / "table.tsv").write_bytes(gzip.decompress((tables / "table.tsv.gz").read_bytes()))
        (tables / "table.tsv.gz").unlink()
        description = {"source": "digits", "origin": "", "classes": ["0"], "image_shape": [1, 16, 16], "max_value": 16}
        description |= {"mean": None, "std": None, "train_images": 1347, "test_images": 450}
        artifacts.DESCRIPTION.parent.mkdir(parents=True)
        artifacts.DESCRIPTION.write_text(json.dumps(description | {"train_sha256": "ab", "test_sha256": "cd"}))
        evaluate.run(parameters.parse(yaml.safe_load((KEPT / "params.yaml").read_text())))
    return folder


@pytest.fixture
def summary(evaluated, monkeypatch):
    """The metrics of the run, in its workspace."""
    monkeypatch.chdir(evaluated)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    yield json.loads(artifacts.METRICS.read_text())["1.0"]
    mlflow.set_tracking_uri(None)


def version(tags):
    shown = [ModelVersionTag(key, str(value)) for key, value in tags.items()]
    return ModelVersion("digits-sigma-1.0", "3", 0, tags=shown)


def told(tags):
    """The facts that a lookup tells of a version with these tags, by name."""
    _, *lines = lookup.describe(described(version(tags), "3")).splitlines()
    return {name: value.strip() for name, _, value in (line.strip().partition(" ") for line in lines)}


@pytest.mark.medium
def test_a_run_holds_both_acrs_and_the_arithmetic_and_the_distribution_of_p_lower(summary):
    tracking = Tracking(Path("mlflow"), "digits")
    run_id = register.complete_run(tracking, 1.0, load_card(artifacts.model(1.0)), summary, "content")
    logged = tracking.client.get_run(run_id).data
    assert logged.metrics["acr_one_class"] == logged.metrics["acr"] == pytest.approx(summary["acr"])
    assert logged.metrics["acr_two_class"] == pytest.approx(summary["acr_two_class"])
    assert (logged.tags["bound"], logged.tags["arithmetic"]) == ("one_class", "float")
    names = {item.path for item in tracking.client.list_artifacts(run_id, "evaluation")}
    assert {"evaluation/curves.csv", "evaluation/p_lower_ecdf.csv", "evaluation/p_lower_ecdf.png"} <= names


def test_a_version_says_both_acrs_the_bound_and_the_arithmetic(summary):
    tags = register.facts_of(1.0, summary) | register.flat_metrics(summary)
    facts = told(tags)
    assert (facts["bound"], facts["arithmetic"]) == ("one_class", "float")
    assert (facts["acr_one_class"], facts["acr_two_class"]) == ("0.896", "1.096"), "rounded down"
    assert "acr" not in facts, "which bound it is by would not be seen"
    facts = told(register.facts_of(1.0, summary | {"bound": "two_class", "arithmetic": "exact"}))
    assert (facts["bound"], facts["arithmetic"]) == ("two_class", "exact")


def test_a_version_of_before_is_one_class_and_float_and_one_of_others_says_nothing():
    facts = told({"acr": 0.8969, "failure_prob": 0.001})
    assert (facts["acr_one_class"], facts["bound"], facts["arithmetic"]) == ("0.896", "one_class", "float")
    assert "acr_two_class" not in facts
    facts = told({"acr": 0.8969})
    assert facts["acr"] == "0.896"
    assert not {"bound", "arithmetic", "acr_one_class"} & set(facts)


def test_preset_radii_have_no_acr_to_name(summary):
    preset = {name: value for name, value in summary.items() if not name.startswith("acr")} | {"mode": "sequential"}
    assert not {"acr", "acr_one_class", "acr_two_class"} & set(register.flat_metrics(preset))
