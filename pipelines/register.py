"""Register the certified models: complete each training's MLflow run and make its model a challenger.

Idempotent: the run is found by the training's key, the model version by the hash of model and table. In an
experiment (`dvc exp run`) runs are logged, but no model is registered and no alias moves.
"""

from typing import Any

import pandas as pd

from components.certification import table
from components.data.prepared import load_description
from components.evaluation import metrics, report
from components.model.card import CARD, ModelCard, load_card
from components.params import Params, level_key
from components.registry.connection import in_one_line
from components.registry.tables import content_hash
from components.registry.tracking import Tracking
from components.registry.versions import model_name
from components.tools.files import locked, read_json
from components.tools.hashing import hash_file
from pipelines import artifacts
from pipelines.cli import run_stage


def run(params: Params) -> None:
    # one registration at a time, else two of the same content would make two versions of it
    with in_one_line("all is in files, run this stage again"), locked(artifacts.registration_lock()):
        register_all(params)


def register_all(params: Params) -> None:
    tracking = Tracking(artifacts.tracking_store(), params.register.name)
    summaries = read_json(artifacts.METRICS, "run the evaluate stage again")
    registered_as = []
    for sigma in params.sigmas:
        card = load_card(artifacts.model(sigma))
        refuse_table_of_another_model(sigma, card)
        content = content_hash(card.content, artifacts.certificates(sigma))
        summary = summaries[level_key(sigma)]
        run_id = complete_run(tracking, sigma, card, summary, content)
        if artifacts.in_experiment():
            registered_as.append("(experiment)")
        else:
            registered_as.append(register_version(tracking, params, sigma, summary, run_id, content))
    tracking.sweep()
    print(report.text_summary(summaries, {"registered as": registered_as}))
    print(
        f"runs:   mlflow ui --backend-store-uri {tracking.uri}"
        if "sqlite" in tracking.uri
        else f"runs:   {tracking.uri}"
    )
    print(f"plots:  {artifacts.REPORT}/certified_accuracy.png and p_lower_ecdf.png, or `dvc plots show`")
    print(f"report: {artifacts.REPORT_PAGE}, which opens in any browser")


def refuse_table_of_another_model(sigma: float, card: ModelCard) -> None:
    """Raises ValueError when the table was not made with the weights that it would be registered with."""
    identity = read_json(artifacts.certificates_identity(sigma), "run the certify stage again")
    if not card.content.items() <= identity.items():
        raise ValueError(f"{artifacts.certificates(sigma)} is a table of other weights: run the certify stage again")


def complete_run(tracking: Tracking, sigma: float, card: ModelCard, summary: dict[str, Any], content: str) -> str:
    """Complete the run that the training logged to, or a new one, from the files; return its id."""
    if run_id := tracking.find_complete_run(card.training_key, content):
        return run_id
    run_id = tracking.start_training_run(card.training_key, card.training)
    tracking.log_missing_epochs(run_id, pd.read_csv(artifacts.history(sigma)).to_dict("records"))
    description = load_description(artifacts.DESCRIPTION)
    certificates = table.read(artifacts.certificates(sigma))
    provenance = read_json(artifacts.provenance(sigma), "run the train stage again")
    identity = read_json(artifacts.certificates_identity(sigma), "run the certify stage again")
    points = metrics.curve(certificates, sigma, metrics.largest_radius_of(identity))
    tracking.complete_run(
        run_id,
        content,
        metrics=flat_metrics(summary),
        curve=list(zip(points["radius"], points["certified_accuracy"], strict=True)),
        tags={
            **{name: summary[name] for name in ("bound", "arithmetic")},
            **{f"certify.{name}": str(value) for name, value in identity.items()},
            **provenance,
            "mlflow.source.git.commit": provenance["git_commit"],
        },
        dataset=(description.source, description.sha256, description.origin),
        files=[
            (artifacts.certificates(sigma).parent, "certificates"),
            (artifacts.history(sigma).parent, "training_log"),
            (artifacts.CURVES, "evaluation"),
            (artifacts.P_LOWER_ECDF, "evaluation"),
            (artifacts.REPORT, "evaluation"),
        ],
    )
    return run_id


def flat_metrics(summary: dict[str, Any]) -> dict[str, float]:
    """A summary as MLflow metrics: certified accuracy under one name per radius."""
    names = ["acr", "acr_standard_error", "acr_one_class", "acr_two_class", "constant_classifier_acr"]
    names += ["clean_accuracy", "abstention", "stopped_early", "mean_n"]
    by_radius = {
        f"certified_accuracy_at_{radius}": value["value"] for radius, value in summary["certified_accuracy"].items()
    }
    undecided = {f"undecided_at_{radius}": value for radius, value in summary.get("undecided", {}).items()}
    return {name: summary[name] for name in names if summary.get(name) is not None} | by_radius | undecided


def facts_of(sigma: float, summary: dict[str, Any]) -> dict[str, Any]:
    """The tags of a model version besides its metrics: facts that a lookup answers, and hashes that its files are
    checked against when they are loaded."""
    card = load_card(artifacts.model(sigma))
    identity = read_json(artifacts.certificates_identity(sigma), "run the certify stage again")
    return {
        "sigma": level_key(sigma),
        **card.content,
        **{name: identity[name] for name in ("mode", "n0", "n", "failure_prob", "images_sha256")},
        "card_sha256": hash_file(artifacts.model(sigma) / CARD),
        **{name: summary[name] for name in ("bound", "arithmetic", "images")},
        "data_sha256": card.data_sha256,
        "git_commit": read_json(artifacts.provenance(sigma), "run the train stage again")["git_commit"],
    }


def register_version(
    tracking: Tracking, params: Params, sigma: float, summary: dict[str, Any], run_id: str, content: str
) -> str:
    """Make the version of this content challenger, creating it if it is new; return its name and number."""
    name = model_name(params.register.name, sigma)
    version = tracking.find_version(name, content)
    tags = {key: str(value) for key, value in (facts_of(sigma, summary) | flat_metrics(summary)).items()}
    if version is None:
        from components.registry.packaging import log_model  # imports torch: only where there is a new version

        uri = log_model(run_id, artifacts.model(sigma), n=summary["n"], failure_prob=summary["failure_prob"])
        version = tracking.register(name, uri, content, tags)
    else:
        tracking.add_missing_tags(version, tags)
    tracking.challenge(name, version)
    return f"{name} v{version.version}"


if __name__ == "__main__":
    run_stage(run, __doc__)
