"""Register the certified models: complete each training's MLflow run and make its model a challenger.

Idempotent: the run is found by the training's key, the model version by the hash of model and table. In an
experiment (`dvc exp run`) runs are logged, but no model is registered and no alias moves.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from components.certification import table
from components.data.prepared import load_description
from components.evaluation import metrics, plots, report
from components.evaluation.page.facts import finding
from components.evaluation.page.level import Level
from components.model.card import CARD, ModelCard, load_card
from components.params import Params, level_key
from components.registry import descriptions
from components.registry.aliases import Version
from components.registry.connection import despite_other_hosts, in_one_line
from components.registry.tables import content_hash
from components.registry.tracking import Tracking
from components.registry.versions import ACCURACY, model_name
from components.tools.files import locked, read_json
from components.tools.hashing import hash_file
from pipelines import artifacts
from pipelines.cli import run_stage
from pipelines.report_files import NoPictures, image_reader
from pipelines.watchdog import FLOW_RUN, FLOW_RUN_URL

EXAMPLES = 2
"""Images in the input example of a model."""


def run(params: Params) -> None:
    # one registration at a time, else two of the same content would make two versions of it
    with in_one_line("all is in files, run this stage again"), locked(artifacts.registration_lock()):
        despite_other_hosts(lambda: register_all(params))


def register_all(params: Params) -> None:
    tracking = Tracking(artifacts.tracking_store(), params.register.name)
    summaries = read_json(artifacts.METRICS, "run the evaluate stage again")
    levels = [level_key(sigma) for sigma in params.sigmas]
    if list(summaries) != levels:
        raise ValueError(
            f"{artifacts.METRICS} has the noise levels {', '.join(summaries)}, {artifacts.PARAMS} has "
            f"{', '.join(levels)}: run the evaluate stage again"
        )
    registered_as = []
    for sigma in params.sigmas:
        card = load_card(artifacts.model(sigma))
        refuse_table_of_another_model(sigma, card)
        content = content_hash(card.content, artifacts.certificates(sigma))
        summary = summaries[level_key(sigma)]
        run_id = complete_run(tracking, sigma, card, summary, content)
        version = None
        if not artifacts.in_experiment():
            version = register_version(tracking, params, sigma, summary, run_id, content)
        describe(tracking, sigma, card, summary, run_id, version)
        registered_as.append(f"{version.name} v{version.version}" if version else "(experiment)")
    descriptions.describe_experiment(tracking.client, tracking.experiment_id)
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
    by_radius = {ACCURACY: "certified_accuracy_at/", UNDECIDED: "undecided_at/"}
    tracking.complete_run(
        run_id,
        content,
        metrics={in_section(name, by_radius): value for name, value in flat_metrics(summary).items()},
        curve=list(zip(points["radius"], points["certified_accuracy"], strict=True)),
        tags={
            **{name: summary[name] for name in ("bound", "arithmetic")},
            **{f"certify.{name}": str(value) for name, value in identity.items()},
            **provenance,
            "mlflow.source.name": "dvc repro",
            "mlflow.source.type": "LOCAL",
            "mlflow.source.git.commit": provenance["git_commit"],
            **flow_run(),
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


UNDECIDED = "undecided_at_"


def in_section(name: str, sections: dict[str, str]) -> str:
    """A metric's name with its prefix replaced, if `sections` has it."""
    prefix = next(filter(name.startswith, sections), "")
    return sections.get(prefix, "") + name.removeprefix(prefix)


def flow_run() -> dict[str, str]:
    """Tags that name the Prefect flow run which runs this stage, if there is one."""
    named = {descriptions.FLOW_RUN: FLOW_RUN, descriptions.FLOW_RUN_URL: FLOW_RUN_URL}
    return {tag: os.environ[variable] for tag, variable in named.items() if os.environ.get(variable)}


def flat_metrics(summary: dict[str, Any]) -> dict[str, float]:
    """A summary as single numbers: certified accuracy under one name per radius."""
    names = ["acr", "acr_standard_error", "acr_one_class", "acr_two_class", "constant_classifier_acr"]
    names += ["clean_accuracy", "abstention", "stopped_early", "mean_n"]
    by_radius = {f"{ACCURACY}{radius}": value["value"] for radius, value in summary["certified_accuracy"].items()}
    undecided = {f"{UNDECIDED}{radius}": value for radius, value in summary.get("undecided", {}).items()}
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
) -> Version:
    """Make the version of this content challenger, creating it if it is new; return it."""
    name = model_name(params.register.name, sigma)
    version = tracking.find_version(name, content)
    tags = {key: str(value) for key, value in (facts_of(sigma, summary) | flat_metrics(summary)).items()}
    if version is None:
        from components.registry.packaging import log_model  # imports torch: only where there is a new version

        defaults = {"n": summary["n"], "failure_prob": summary["failure_prob"]}
        uri = log_model(run_id, artifacts.model(sigma), **defaults, example=example_images(params))
        version = tracking.register(name, uri, content, tags)
    else:
        tracking.add_missing_tags(version, tags)
    tracking.challenge(name, version)
    return version


def example_images(params: Params) -> np.ndarray | None:
    """The first test images as a request holds them; None where they cannot be read."""
    description = load_description(artifacts.DESCRIPTION)
    try:
        image = image_reader(params, description, [])
        return np.stack([image(index) for index in range(min(EXAMPLES, description.test_images))]).astype(np.float32)
    except NoPictures:
        return None


def describe(
    tracking: Tracking,
    sigma: float,
    card: ModelCard,
    summary: dict[str, Any],
    run_id: str,
    version: Version | None,
) -> None:
    """Write what MLflow's pages say about a run and its version, with a picture of the curve."""
    certificates, key = table.read(artifacts.certificates(sigma)), level_key(sigma)
    identity = read_json(artifacts.certificates_identity(sigma), "run the certify stage again")
    run = tracking.client.get_run(run_id)
    header, (row,) = report.summary_rows({key: summary}, columns=12)
    facts = dict(zip(header, row, strict=True))
    facts |= {"data": f"{load_description(artifacts.DESCRIPTION).source}, {card.data_sha256[:12]}"}
    provenance = read_json(artifacts.provenance(sigma), "run the train stage again")
    facts |= {"commit": provenance["git_commit"][:12]}
    text = descriptions.certified(
        run,
        version,
        finding=finding([Level(key, certificates, identity, summary)])["said"],
        facts=facts,
        remarks=[report.made_by({key: summary}), *report.remarks({key: summary})],
        shape=card.image_shape,
    )
    if descriptions.wants(run, text, replace=version is not None):
        points = metrics.curve(certificates, sigma, metrics.largest_radius_of(identity))
        spec = plots.certified_accuracy_spec(points, artifacts.PLOT_TEMPLATE, f"Certified accuracy at sigma {key}")
        with tempfile.TemporaryDirectory() as folder:
            plots.render_png(spec, Path(folder) / descriptions.PICTURE, scale=1)
            tracking.client.log_artifact(run_id, f"{folder}/{descriptions.PICTURE}", descriptions.FOLDER)
        tracking.client.set_tag(run_id, descriptions.NOTE, text)
    if version is not None:
        descriptions.describe_version(tracking.client, version, text, key)


if __name__ == "__main__":
    run_stage(run, __doc__)
