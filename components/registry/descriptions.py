"""What MLflow's pages say about an experiment, a run, a registered model and a version, in Markdown.

MLflow shows pictures only by address: a run's picture is named relative to MLflow's own page, so it is shown wherever
that is served from. Links are relative too.
"""

from urllib.parse import quote

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion

NOTE = "mlflow.note.content"
"""Tag of a run or an experiment that MLflow shows as its description."""
PICTURE = "certified_accuracy_of_this_model.png"
FOLDER = "evaluation"
"""Folder of the report and of `PICTURE` in a run's artifacts."""
OURS = "<!-- written by the register stage, which replaces it if the model is certified anew -->"
FLOW_RUN, FLOW_RUN_URL = "prefect.flow_run", "prefect.flow_run_url"
"""Tags of a run: id and address of the Prefect flow run that made it."""


def certified(
    run: Run, version: ModelVersion | None, *, finding: str, facts: dict[str, str], remarks: list[str], shape: list[int]
) -> str:
    """What a certified model is and how to use it; the same text for its run and its version.

    Args:
        version: None where the model is not registered.
        finding: the result in one sentence.
        facts: the table of results, name and value.
        remarks: what a reader of the table must know.
        shape: of one image.
    """
    page = f"#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
    tags = run.data.tags
    links = [f"run [{run.info.run_name}]({page})", f"[report]({page}/artifacts/{FOLDER}/report.html)"]
    if version is not None:
        name, number = version.name, version.version
        links.append(f"model [{name} v{number}](#/models/{quote(name)}/versions/{number})")
        links.append(f"[verdicts]({page}/artifacts/promotion), once there are some")
    if FLOW_RUN_URL in tags:
        links.append(f"[Prefect flow run]({tags[FLOW_RUN_URL]})")
    rows = "".join(f"| {name} | {value} |\n" for name, value in facts.items())
    picture = f"get-artifact?path={FOLDER}/{PICTURE}&run_uuid={run.info.run_id}"
    parts = [
        finding,
        f"| | |\n|:---|---:|\n{rows}",
        " ".join(remarks),
        f"![Certified accuracy over the L2 radius]({picture})",
        f"See {', '.join(links)}.",
        *([use(version, shape)] if version is not None else []),
        OURS,
    ]
    return "\n\n".join(parts)


def use(version: ModelVersion, shape: list[int]) -> str:
    uri = f"models:/{version.name}/{version.version}"
    return (
        "```python\n"
        f'model = mlflow.pyfunc.load_model("{uri}")\n'
        f"model.predict(images)  # float32 (B, {', '.join(map(str, shape))}) in [0, 1]\n"
        "```\n\n"
        f"To serve it: `make serve MODEL={uri}`, or `mlflow models serve -m {uri} --env-manager local`."
    )


def of_model(name: str, sigma: str) -> str:
    return (
        f"A smoothed classifier at sigma {sigma}: each answer has a radius (L2) within which no perturbation changes "
        "it, or it abstains. A version is one training with its table of certificates; its description has the "
        "results. The alias `challenger` is at the newest version, `champion` at the one that a promotion has chosen, "
        f'`previous` at the champion before.\n\nTo load it: `mlflow.pyfunc.load_model("models:/{name}@champion")`.'
    )


def of_experiment(name: str) -> str:
    return (
        f"Trainings and certifications of `{name}`: one run per noise level and recipe. A run is named after what "
        "differs most often; select runs and press Compare for the rest. The metric "
        "`certified_accuracy/over_radius_x1000` is the curve of certified accuracy: its step is the L2 radius "
        f"in thousandths. Models are registered as `{name}-sigma-...`."
    )


def wants(run: Run, text: str, *, replace: bool) -> bool:
    """Whether a run is to get this description: not where it has it, or where a person has written one.

    Args:
        replace: another one that was written here is replaced.
    """
    before = run.data.tags.get(NOTE, "")
    return not before or (replace and before != text and before.endswith(OURS))


def describe_version(client: MlflowClient, version: ModelVersion, text: str, sigma: str) -> None:
    """Write the descriptions of a version and of its registered model, where they have none."""
    if not version.description:
        client.update_model_version(version.name, str(version.version), text)
    if not client.get_registered_model(version.name).description:
        client.update_registered_model(version.name, of_model(version.name, sigma))


def describe_experiment(client: MlflowClient, experiment_id: str) -> None:
    """Write the description of an experiment, where it has none."""
    experiment = client.get_experiment(experiment_id)
    if NOTE not in experiment.tags:
        client.set_experiment_tag(experiment_id, NOTE, of_experiment(experiment.name))
