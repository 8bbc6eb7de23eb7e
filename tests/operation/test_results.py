"""What Prefect shows of a run's results: the report's table with its picture, and where the models are in MLflow."""

import base64
from dataclasses import replace

import pytest

from components import params as parameters
from pipelines import artifacts
from pipelines.operation import flow, results
from pipelines.watchdog import FLOW_RUN
from tests.support.registry import local, store  # noqa: F401
from tests.support.workspace import ROOT

pytestmark = pytest.mark.medium
REPORT = "# Certified\n\n| sigma |\n|---:|\n| 0.5 |\n\n![Certified accuracy](curve.png)\n\nmore\n\n![P](other.png)\n"


def test_the_picture_is_in_the_text_and_nothing_after_it(tmp_path):
    (tmp_path / "curve.png").write_bytes(b"a picture")
    before, _, picture = results.table_and_picture(REPORT, tmp_path).partition(
        "![Certified accuracy](data:image/png;base64,"
    )
    assert before.endswith("| 0.5 |\n\n")
    assert base64.b64decode(picture.removesuffix(")")) == b"a picture"


def test_the_newest_versions_are_named_with_their_runs(local, store, monkeypatch):  # noqa: F811
    monkeypatch.setattr(artifacts, "tracking_store", lambda: store)
    recipe = parameters.load(ROOT / "params.yaml")
    experiment = local.client.get_experiment(local.experiment_id).name
    params = replace(recipe, noise_levels={"0.5": {}}, register=replace(recipe.register, name=experiment))
    run_id, name = (
        local.start_training_run("8a325ea7d", {"method": "smoothmix", "sigma": 0.5}),
        f"{experiment}-sigma-0.5",
    )
    local.client.create_registered_model(name)
    version = local.client.create_model_version(name, f"runs:/{run_id}/model", run_id)
    with pytest.raises(ValueError, match="MLflow did not answer"):
        results.registered(params)
    local.challenge(name, version)
    said = results.registered(params)
    assert "`make ui`" in said
    assert f"- sigma 0.5: models:/{name}/1, of the run smoothmix sigma 0.5, 8a325ea\n" in said


def test_a_stage_is_told_its_flow_run(monkeypatch):
    assert flow.named() == {}, "not in a flow"
    monkeypatch.setenv("PREFECT__RUNTIME__FLOW_RUN__ID", "1234")
    assert flow.named()[FLOW_RUN] == "1234"
