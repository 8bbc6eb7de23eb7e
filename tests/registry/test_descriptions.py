"""What MLflow's pages say: written once, and never over what a person has written."""

import pytest

from components.registry import descriptions
from components.registry.tracking import CONTENT, run_name

pytestmark = pytest.mark.medium
FACTS = {"sigma": 0.5, "method": "smoothmix", "network": "lenet", "epochs": 30, "seed": 0}


def text_of(run, version, finding="54.0 % are certified."):
    facts = {"sigma": "0.5", "clean acc": "0.962"}
    return descriptions.certified(
        run, version, finding=finding, facts=facts, remarks=["Tables: exact."], shape=[1, 16, 16]
    )


def test_a_run_s_name_says_what_differs():
    names = {
        run_name("8a325ea7d21270428", FACTS),
        run_name("b9cff95151c6c90bf", FACTS | {"epochs": 1}),
        run_name("3026571a23e53b36d", FACTS | {"epochs": 1, "seed": 7, "sigma": 1.0}),
    }
    assert names == {
        "smoothmix sigma 0.5, 30 epochs, lenet, 8a325ea",
        "smoothmix sigma 0.5, 1 epoch, lenet, b9cff95",
        "smoothmix sigma 1.0, 1 epoch, lenet, seed 7, 3026571",
    }


def test_tags_are_written_with_hashes_last(local):
    run_id = local.start_training_run("key", FACTS)
    tags = {"certify.weights_sha256": "ab", "certify.n": "500", "git_commit": "cd", "bound": "two_class"}
    local.complete_run(run_id, "content", metrics={}, curve=[], tags=tags, dataset=("d", "0", ""), files=[])
    written = [tag for tag in local.client.get_run(run_id).data.tags if tag in (*tags, CONTENT)]
    assert written == ["certify.n", "bound", "certify.weights_sha256", "git_commit", CONTENT]


def test_a_run_gets_its_text_once_and_another_only_in_place_of_ours(local):
    run_id = local.start_training_run("key", FACTS)

    def run():
        return local.client.get_run(run_id)

    first, second = text_of(run(), None), text_of(run(), None, "55.0 % are certified.")
    assert descriptions.wants(run(), first, replace=False)
    local.client.set_tag(run_id, descriptions.NOTE, first)
    assert not descriptions.wants(run(), first, replace=True)
    assert descriptions.wants(run(), second, replace=True)
    assert not descriptions.wants(run(), second, replace=False), "an experiment leaves what a registration wrote"
    local.client.set_tag(run_id, descriptions.NOTE, "mine")
    assert not descriptions.wants(run(), second, replace=True)


def test_a_version_of_before_gets_its_text_and_keeps_a_person_s(local):
    name, run_id = "two words-sigma-0.5", local.start_training_run("key", FACTS)
    local.client.create_registered_model(name, description="mine")
    version = local.client.create_model_version(name, f"runs:/{run_id}/model", run_id)
    local.client.set_tag(run_id, descriptions.FLOW_RUN_URL, "http://127.0.0.1:4200/flow-runs/flow-run/1")
    text = text_of(local.client.get_run(run_id), version)
    descriptions.describe_version(local.client, version, text, "0.5")
    version = local.client.get_model_version(name, "1")
    assert version.description == text
    assert text.startswith("54.0 % are certified.\n")
    for part in (
        "| clean acc | 0.962 |",
        f"](get-artifact?path=evaluation/{descriptions.PICTURE}&run_uuid={run_id})",
        f"/runs/{run_id}/artifacts/evaluation/report.html)",
        "(#/models/two%20words-sigma-0.5/versions/1)",
        "[Prefect flow run](http://127.0.0.1:4200/flow-runs/flow-run/1)",
        'load_model("models:/two words-sigma-0.5/1")',
    ):
        assert part in text, part
    assert local.client.get_registered_model(name).description == "mine"
    descriptions.describe_version(local.client, version, "another", "0.5")
    assert local.client.get_model_version(name, "1").description == text


def test_an_experiment_is_described_once(local):
    for note in (None, "mine"):
        if note:
            local.client.set_experiment_tag(local.experiment_id, descriptions.NOTE, note)
        descriptions.describe_experiment(local.client, local.experiment_id)
        found = local.client.get_experiment(local.experiment_id).tags[descriptions.NOTE]
        assert found == note if note else "one run per noise level" in found
