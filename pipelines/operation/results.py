"""Shows in Prefect what a run has certified: the report's table and picture, and where the models are in MLflow."""

import base64
import re
from pathlib import Path

from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact

from components import params as parameters
from components.params import Params, level_key
from pipelines import artifacts

KEY = "certified"
"""Of the artifact. Prefect keeps that of each run, and shows the newest first."""


def publish(folder: Path) -> None:
    """Make the artifact of this run from the results in a workspace."""
    params = parameters.load(folder / artifacts.PARAMS)
    report = folder / artifacts.REPORT / "report.md"
    text = table_and_picture(report.read_text(encoding="utf-8"), report.parent)
    try:
        text += f"\n\n{registered(params)}"
    except ValueError as error:
        get_run_logger().warning(f"{error}")
    description = f"results of {params.register.name}; the whole report is {folder / artifacts.REPORT_PAGE}"
    create_markdown_artifact(text, key=KEY, description=description)


def table_and_picture(markdown: str, folder: Path) -> str:
    """The report up to its first picture, which is put into the text: Prefect has no files beside it."""
    before, said, name = re.split(r"!\[([^]]*)\]\(([^)]+)\)", markdown, maxsplit=1)[:3]
    picture = base64.b64encode((folder / name).read_bytes()).decode()
    return f"{before}![{said}](data:image/png;base64,{picture})"


def registered(params: Params) -> str:
    """The newest versions and their runs, as links where MLflow has an address.

    Raises:
        ValueError: MLflow does not answer.
    """
    from components.registry.aliases import CHALLENGER  # imports MLflow, which only this function needs
    from components.registry.connection import in_one_line
    from components.registry.versions import model_name
    from pipelines.champion_challenger import connect

    lines = []
    with in_one_line("the models are registered, but the artifact does not name them"):
        tracking = connect(params)
        for sigma in params.sigmas:
            name = model_name(params.register.name, sigma)
            version = tracking.client.get_model_version_by_alias(name, CHALLENGER)
            run = tracking.client.get_run(str(version.run_id)).info
            model, made_by = f"models:/{name}/{version.version}", str(run.run_name)
            if tracking.uri.startswith("http"):
                pages = f"{tracking.uri.rstrip('/')}/#"
                model = f"[{model}]({pages}/models/{name}/versions/{version.version})"
                made_by = f"[{made_by}]({pages}/experiments/{run.experiment_id}/runs/{run.run_id})"
            lines.append(f"- sigma {level_key(sigma)}: {model}, of the run {made_by}\n")
    where = tracking.uri if tracking.uri.startswith("http") else "the project's own store; `make ui` shows it"
    return f"Registered in MLflow ({where}):\n\n{''.join(lines)}"
