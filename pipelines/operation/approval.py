"""Open questions of a promotion, put to a person in Prefect: a run that is suspended until it is answered.

A run of its own, because a night's run must end: while it waited, Prefect would take its place in the deployment's
limit away and stop it. A suspended run holds no process, so it waits through restarts of workers and machines.
"""

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from prefect import flow, get_run_logger, suspend_flow_run
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import State, StateType
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.input import RunInput
from prefect.states import Cancelled

from pipelines.operation import worktree
from pipelines.operation.dvc_stages import ProcessGroups

DEPLOYMENT = "approval"


class Reply(RunInput):
    """What the form asks; see `approval`."""

    promote: bool
    """False keeps the champion."""
    name: str
    """Who answers."""


@flow(name="approval", flow_run_name="{model}-v{version}")
def approval(model: str, version: str, sigma: str, until: datetime, commit: str, report: str) -> None:
    """Ask whether a challenger becomes champion, and do as the answer says; silence keeps the champion.

    Args:
        model, version: the challenger in the registry.
        sigma: its noise level.
        until: after it the question can no longer be answered.
        commit: of the project that asks.
        report: the verdict with its evidence, in Markdown.
    """
    form = Reply.with_initial_data(description=report)
    seconds = (until - datetime.now(UTC)).total_seconds()
    answer = suspend_flow_run(wait_for_input=form, timeout=max(1, int(seconds)), key="answer")
    # here the run goes on, from its start and perhaps elsewhere, once it is answered
    verb = "approve" if answer.promote else "refuse"
    command = [sys.executable, "-m", "pipelines.promote", verb, "--sigma", sigma, "--version", version]
    with worktree.passing(commit) as folder:
        ProcessGroups().run("promote", [*command, "--by", answer.name], folder, get_run_logger().info)


def ask(questions: list[dict[str, Any]], commit: str, report: str, say: Callable[[str], None]) -> None:
    """Start a run of `approval` for each question that has none yet.

    Args:
        questions: levels of verdict.json.
    """
    for level in questions:
        model, version, sigma = level["model"], level["challenger"], level["sigma"]
        say(f"{model} v{version} waits for a person: python -m pipelines.promote approve --sigma {sigma}, or refuse")
        facts = {"model": model, "version": version, "sigma": sigma, "until": level["expires"]}
        try:
            run_deployment(
                f"{approval.name}/{DEPLOYMENT}",
                parameters=facts | {"commit": commit, "report": report},
                timeout=0,  # do not wait for it
                as_subflow=False,
                idempotency_key=f"{model}-v{version}-{level['expires']}",
            )
        except ObjectNotFound:
            say("the flow approval is not deployed here: answer on the command line")


def close_expired(client: SyncPrefectClient) -> None:
    """Questions that nobody answered in time are no longer shown as waiting."""
    paused = client.read_flow_runs(
        flow_filter=FlowFilter(name=FlowFilterName(any_=[approval.name])),
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PAUSED]))),
    )
    for run in paused:
        until = run.state.state_details.pause_timeout if run.state else None
        if until and until < datetime.now(UTC):
            state: State = Cancelled(message="nobody answered in time: the champion stays")
            client.set_flow_run_state(run.id, state, force=True)
