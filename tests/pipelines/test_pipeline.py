"""The whole pipeline, on a slice of the digits, in a temporary copy of the project: real DVC, MLflow and Prefect."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest

from components.registry.descriptions import NOTE
from components.registry.tracking import CURVE
from tests.support.workspace import ROOT, copy_project, copy_results, edit, kill_when, run, stages_run

pytestmark = pytest.mark.medium


@pytest.fixture
def client(project: Path) -> mlflow.MlflowClient:
    return client_of(project)


def client_of(project: Path) -> mlflow.MlflowClient:
    mlflow.set_tracking_uri(f"sqlite:///{project}/.state/mlflow/mlflow.db")
    return mlflow.MlflowClient()


def runs(client: mlflow.MlflowClient) -> list[mlflow.entities.Run]:
    return client.search_runs([client.get_experiment_by_name("digits").experiment_id])


def test_a_second_repro_runs_registration_alone_and_adds_no_run_and_no_version(project, client):
    before = {run.info.run_id for run in runs(client)}
    assert stages_run(run(project, "dvc", "repro")) == ["brought", "register"]
    assert {run.info.run_id for run in runs(client)} == before
    assert len(before) == 2
    for name in ("digits-sigma-0.5", "digits-sigma-1.0"):
        assert [version.version for version in client.search_model_versions(f"name='{name}'")] in (["1"], [1])


@pytest.mark.parametrize(
    "level",
    ["{attack_steps: 2}", "{attack_steps: 1, attack_radius: null}", "{attack_steps: 1}\n    macer: {deferred: false}"],
)
def test_changing_one_noise_level_reruns_that_level_alone(project, level):
    original = (project / "params.yaml").read_text()
    edit(project / "params.yaml", {r'"0.5":(\n    .*)*': f'"0.5":\n    smoothmix: {level}'})
    would_run = stages_run(run(project, "dvc", "repro", "--dry"))
    (project / "params.yaml").write_text(original)
    assert [stage for stage in would_run if stage.startswith("train")] == ["train@0.5"]


def test_table_metrics_and_run_say_the_same(project, client):
    table = pd.read_csv(project / "outputs/certificates/0.5/table.tsv", sep="\t")
    assert list(table.columns[:5]) == ["idx", "label", "predict", "radius", "correct"]
    assert list(table["idx"]) == list(range(0, 450, 30))
    acr = (table["radius"] * table["correct"]).mean()
    (logged,) = (entry for entry in runs(client) if entry.data.params["sigma"] == "0.5")
    assert logged.data.metrics["acr"] == pytest.approx(acr, abs=1e-9)
    assert logged.data.metrics["certified_accuracy_at/0.5"] == pytest.approx(
        (table["correct"].astype(bool) & (table["radius"] >= 0.5)).mean()
    )
    search = "metrics.`certified_accuracy_at/0.5` >= 0"  # as docs/operations.md says
    assert len(client.search_runs([logged.info.experiment_id], search)) == 2
    version = client.get_model_version_by_alias("digits-sigma-0.5", "challenger")
    assert version.run_id == logged.info.run_id
    assert float(version.tags["acr"]) == logged.data.metrics["acr"]


def test_a_run_holds_history_curve_table_plots_dataset_and_commit(project, client):
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=project, capture_output=True, text=True).stdout.strip()
    for entry in runs(client):
        assert entry.info.status == "FINISHED"
        assert [metric.step for metric in client.get_metric_history(entry.info.run_id, "loss")] == [0, 1]
        assert len(client.get_metric_history(entry.info.run_id, CURVE)) == 200
        names = {item.path for item in client.list_artifacts(entry.info.run_id, "evaluation")}
        assert {"evaluation/curves.csv", "evaluation/report.html", "evaluation/certified_accuracy.png"} <= names
        names = {item.path for item in client.list_artifacts(entry.info.run_id, "certificates")}
        assert names == {"certificates/table.tsv", "certificates/identity.json"}
        assert entry.inputs.dataset_inputs[0].dataset.name == "digits"
        assert entry.data.tags["git_commit"] == head


def test_run_version_model_and_experiment_say_what_they_are(project, client):
    for name in ("digits-sigma-0.5", "digits-sigma-1.0"):
        version = client.get_model_version_by_alias(name, "challenger")
        entry = client.get_run(version.run_id)
        text, _, end = version.description.partition("See run ")
        assert text.startswith(("The", "No", *"0123456789"))
        assert f"| sigma | {name.removeprefix('digits-sigma-')} |" in text
        assert f"| commit | {entry.data.tags['git_commit'][:12]} |" in text
        (picture,) = re.findall(rf"get-artifact\?path=(evaluation/\w+\.png)&run_uuid={version.run_id}\)", text)
        assert picture in [item.path for item in client.list_artifacts(version.run_id, "evaluation")]
        page = f"#/experiments/{entry.info.experiment_id}/runs/{version.run_id}"
        assert f"[{entry.info.run_name}]({page})" in end
        assert f"[{name} v1](#/models/{name}/versions/1)" in end
        assert entry.data.tags[NOTE] == version.description
        assert "champion" in client.get_registered_model(name).description
        tags = list(entry.data.tags)
        hashes = [tag for tag in tags if tag.endswith("sha256")]
        assert tags.index("certify.n") < min(map(tags.index, hashes))
    experiment = client.get_experiment(entry.info.experiment_id)
    assert CURVE in experiment.tags[NOTE]


def test_the_registered_model_says_what_it_takes_with_an_example(project, client):
    model = mlflow.pyfunc.load_model("models:/digits-sigma-0.5@challenger")
    (images,) = model.metadata.get_input_schema().inputs
    assert (images.type, images.shape) == (np.float32, (-1, 1, 16, 16))
    assert [param.name for param in model.metadata.get_params_schema()] == ["n", "failure_prob", "radius"]
    expected = np.load(project / "outputs/data/prepared/test/images.npy")[:2] / 16
    assert np.array_equal(model.input_example, expected)
    assert len(model.predict(model.input_example)) == 2


def test_the_registered_model_answers_with_certificates_and_no_pickle(project, client, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    model = mlflow.pyfunc.load_model("models:/digits-sigma-0.5@challenger")
    images = np.load(project / "outputs/data/prepared/test/images.npy")[:6].astype(np.float32) / 16
    answer = model.predict(images)
    assert {"class", "radius", "abstain", "p_lower"} <= set(answer.columns)
    assert (answer["abstain"] == (answer["class"] == -1)).all()
    assert (answer["radius"] <= 0.5 * 1.826).all()  # n = 200 at .001 certifies no more than 1.825 sigma
    with pytest.raises(ValueError, match=r"outside \[0, 1\]"):
        model.predict(images * np.float32("nan"))
    with pytest.raises(ValueError, match="at least 11 samples"):
        model.predict(images, params={"n": 9})


def test_the_local_example_of_the_page_runs(project):
    _, section = (ROOT / "docs/registered-model.md").read_text().split("## Use it locally")
    example = section.split("```python\n")[1].split("```")[0]
    assert len(list(filter(None, example.splitlines()))) == 5
    result = run(project, sys.executable, "-c", example)
    assert result.returncode == 0, result.stderr
    header, *rows = result.stdout.strip().splitlines()
    assert header == ",class,class_name,radius,abstain,p_lower,p_upper,n,rounded"
    assert {row.split(",")[3] for row in rows} <= {"0.0", "0.25"}
    assert len(rows) == 5


@pytest.mark.slow
def test_an_audit_lets_an_honest_table_stand_and_finds_inflated_radii(project, client, tmp_path):
    audit = [sys.executable, "-m", "pipelines.audit", "--model", "models:/digits-sigma-0.5@challenger"]
    honest = run(project, *audit, "--images", "15")
    assert honest.returncode == 0, honest.stderr
    assert "the table stands" in honest.stdout
    copy = copy_results(project, tmp_path)
    edit(copy / "params.yaml", {r"\n  n: 200": "\n  n: 10000"})  # at n = 200 bounds are so loose that 30 % may be true
    assert run(copy, sys.executable, "-m", "pipelines.certify", "--sigma", "0.5").returncode == 0
    table = copy / "outputs/certificates/0.5/table.tsv"
    rows = pd.read_csv(table, sep="\t")
    rows["radius"] *= 1.3
    rows["p_lower"], rows["p_upper"] = rows["p_lower"] ** 0.5, rows["p_upper"] / 2
    table.unlink()  # a link into DVC's cache
    rows.to_csv(table, sep="\t", index=False)
    assert run(copy, sys.executable, "-m", "pipelines.evaluate").returncode == 0
    registered = run(copy, sys.executable, "-m", "pipelines.register")
    assert registered.returncode == 0, registered.stderr
    inflated = run(copy, *audit, "--images", "15")
    assert inflated.returncode == 1
    assert "rows claim more than their counts give" in inflated.stdout
    assert "fresh noise contradicts" in inflated.stdout


@pytest.mark.slow
def test_a_fresh_tracking_store_is_filled_from_the_files(project, tmp_path):
    uri = f"sqlite:///{tmp_path}/other.db"
    result = run(project, sys.executable, "-m", "pipelines.register", MLFLOW_TRACKING_URI=uri)
    assert result.returncode == 0, result.stderr
    mlflow.set_tracking_uri(uri)
    other = mlflow.MlflowClient()
    for entry in runs(other):
        assert entry.info.status == "FINISHED"
        assert len(other.get_metric_history(entry.info.run_id, "loss")) == 2
        assert "acr" in entry.data.metrics


@pytest.mark.slow
def test_a_tracking_server_that_is_down_does_not_stop_a_training(project, tmp_path):
    copy = copy_results(project, tmp_path)
    command = (sys.executable, "-m", "pipelines.train", "--sigma", "0.5")
    result = run(copy, *command, MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert result.returncode == 0
    assert "training goes on" in result.stderr
    weights = "outputs/models/0.5/weights.safetensors"
    assert (copy / weights).read_bytes() == (project / weights).read_bytes()


@pytest.mark.parametrize(
    ("poison", "named"),
    [
        (("labels", 7, 10), "label outside the classes 0 to 9: train image 7"),
        (("images", 5, None), "test image that is also in train: test image 3"),
    ],
)
def test_poisoned_data_stops_the_pipeline_before_training(project, tmp_path, poison, named):
    copy = copy_results(project, tmp_path)
    array, row, value = poison
    path = copy / f"outputs/data/prepared/train/{array}.npy"
    values = np.load(path)
    values[row] = np.load(copy / "outputs/data/prepared/test/images.npy")[3] if value is None else value
    path.unlink()
    np.save(path, values)
    result = run(copy, sys.executable, "-m", "pipelines.validate")
    assert result.returncode == 1
    assert named in result.stderr
    assert "look at outputs/data/data.html" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_bad_parameter_is_named_by_every_command_before_anything_runs(project, tmp_path):
    copy = copy_results(project, tmp_path)
    edit(copy / "params.yaml", {"method: smoothmix": "method: smothmix"})
    stages = ("prepare", "validate", "train --sigma 0.5", "certify --sigma 0.5", "evaluate", "register", "flow run")
    stages += ("promote", "lookup history")
    for stage in stages:
        result = run(copy, sys.executable, "-m", *f"pipelines.{stage}".split())
        assert result.returncode == 2, stage
        assert "train.method is 'smothmix': must be one of smoothmix, gaussian, stability" in result.stderr


def test_a_killed_training_goes_on_and_ends_with_the_same_weights(project, tmp_path):
    copy = copy_results(project, tmp_path)
    weights = copy / "outputs/models/1.0/weights.safetensors"
    weights.unlink()
    command = [sys.executable, "-m", "pipelines.train", "--sigma", "1.0"]
    kill_when(lambda: list(copy.glob(".state/checkpoints/*/epoch-*.pt")), copy, command)
    again = run(copy, *command)
    assert "continuing after epoch 1 of 2" in again.stdout, again.stderr
    assert weights.read_bytes() == (project / "outputs/models/1.0/weights.safetensors").read_bytes()


def test_a_table_of_other_weights_is_not_registered(project, tmp_path):
    copy = copy_results(project, tmp_path)
    identity = copy / "outputs/certificates/1.0/identity.json"
    identity.unlink()  # a link into DVC's cache
    shutil.copy2(copy / "outputs/certificates/0.5/identity.json", identity)
    result = run(copy, sys.executable, "-m", "pipelines.register")
    assert result.returncode == 1
    assert (
        "outputs/certificates/1.0/table.tsv is a table of other weights: run the certify stage again" in result.stderr
    )


def test_an_evaluation_of_other_noise_levels_is_not_registered(project, tmp_path):
    copy = copy_results(project, tmp_path)
    metrics = copy / "outputs/evaluation/metrics.json"
    summaries = json.loads(metrics.read_text())
    metrics.unlink()  # a link into DVC's cache
    metrics.write_text(json.dumps({"0.25": {}} | summaries))
    result = run(copy, sys.executable, "-m", "pipelines.register")
    assert result.returncode == 1
    levels = ", ".join(summaries)
    assert f"metrics.json has the noise levels 0.25, {levels}, params.yaml has {levels}: run the eval" in result.stderr


@pytest.mark.slow
def test_the_flow_names_the_stage_that_failed_and_its_last_lines(project, tmp_path):
    copy = copy_results(project, tmp_path)
    edit(copy / "pipelines/prepare.py", {"( +)save_split\\(train,": r"\1train.labels[11] = 77\n\1save_split(train,"})
    result = run(copy, sys.executable, "-m", "pipelines.flow", "run")
    assert result.returncode == 1
    assert "error: stage validate exited with" in result.stderr
    assert "label outside the classes 0 to 9: train image 11" in result.stderr
    assert "Running stage 'train" not in result.stdout + result.stderr


@pytest.mark.slow
def test_the_flow_runs_the_whole_graph(tmp_path):
    folder = copy_project(tmp_path)
    result = run(folder, sys.executable, "-m", "pipelines.flow", "run")
    assert result.returncode == 0, result.stderr
    assert "digits-sigma-1.0 v1" in result.stdout + result.stderr
    assert stages_run(run(folder, "dvc", "repro")) == ["brought", "register"]


@pytest.mark.slow
def test_an_experiment_logs_runs_in_the_main_store_and_moves_no_alias(project, tmp_path):
    copy = copy_results(project, tmp_path)
    assert stages_run(run(copy, "dvc", "repro")) == ["brought", "register"]
    client = client_of(copy)
    before = len(runs(client))
    subprocess.run(["git", "add", "-A"], cwd=copy, check=True)
    subprocess.run(
        ["git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "results"], cwd=copy, check=True
    )
    result = run(copy, "dvc", "exp", "run", "--temp", "-S", "train.epochs=1", "-S", "train.warmup_epochs=1")
    assert result.returncode == 0, result.stdout + result.stderr
    assert len(runs(client)) == before + 2
    for name in ("digits-sigma-0.5", "digits-sigma-1.0"):
        assert len(client.search_model_versions(f"name='{name}'")) == 1


@pytest.mark.slow
def test_a_local_remote_restores_a_deleted_cache(project, tmp_path):
    copy = copy_results(project, tmp_path)
    assert run(copy, "dvc", "remote", "add", "-d", "local", str(tmp_path / "remote")).returncode == 0
    assert run(copy, "dvc", "push").returncode == 0
    for folder in (
        ".dvc/cache",
        *(f"outputs/{name}" for name in ("data/prepared", "models", "certificates", "training_logs")),
    ):
        shutil.rmtree(copy / folder)
    assert run(copy, "dvc", "pull").returncode == 0
    assert stages_run(run(copy, "dvc", "repro", "--dry")) == ["brought", "register"]


def test_the_plot_of_all_noise_levels_is_drawn_offline_and_by_dvc(project):
    png = (project / "outputs/evaluation/report/certified_accuracy.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    assert len(png) > 10_000
    page = (project / "outputs/evaluation/report/report.html").read_text(encoding="utf-8")
    assert not re.search(r'(src|href)="(?!#|data:)', page)
    shown = run(project, "dvc", "plots", "show", "--show-vega", "outputs/evaluation/curves.csv")
    assert shown.returncode == 0, shown.stderr
    assert '"field": "sigma"' in shown.stdout
