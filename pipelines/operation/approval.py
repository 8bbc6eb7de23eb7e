"""Asks a person in Prefect about a promotion's open question, with a run that is suspended until it is answered.

It is a separate run because the nightly run must end: if that one waited, Prefect would take away its slot in the
deployment's concurrency limit and stop it. A suspended run holds no process, so it survives restarts of workers and
machines.
"""

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from prefect import flow, get_run_logger, suspend_flow_run
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.input import RunInput
from prefect.runtime import deployment
from prefect.states import Cancelled, Completed

from components import params as parameters
from pipelines import artifacts
from pipelines.operation import worktree
from pipelines.operation.dvc_stages import stopped_at_the_end

DEPLOYMENT, SERVED = "approval", "approval-served"
"""Names of the flow's deployment to a work pool, and of the one that `flow serve` runs."""


class Reply(RunInput):
    """The fields of the form; see `approval`."""

    promote: bool
    """False keeps the champion."""
    name: str
    """Who answers."""


@flow(name="approval", flow_run_name="{model}-v{version}")
def approval(model: str, version: str, sigma: str, until: datetime, commit: str, report: str) -> State:
    """Ask whether a challenger becomes champion, and do as the answer says; silence keeps the champion.

    Args:
        model, version: the challenger in the registry.
        sigma: its noise level.
        until: deadline for the answer.
        commit: the commit of the project that asks.
        report: the verdict with its evidence, in Markdown.
    """
    form = Reply.with_initial_data(description=report)
    seconds = (until - datetime.now(UTC)).total_seconds()
    answer = suspend_flow_run(wait_for_input=form, timeout=max(1, int(seconds)), key="answer")
    # here the run goes on, from its start and perhaps elsewhere, once it is answered
    if closed := closed_already(model, version):
        return Cancelled(message=f"{closed}: {answer.name}'s answer changes nothing")
    verb = "approve" if answer.promote else "refuse"
    command = [sys.executable, "-m", "pipelines.promote", verb, "--sigma", sigma, "--version", version]
    with worktree.passing(commit) as folder, stopped_at_the_end() as processes:
        processes.run("promote", [*command, "--by", answer.name], folder, get_run_logger().info)
    return Completed(message=f"{answer.name} said {verb}")


def closed_already(model: str, version: str) -> str | None:
    """A sentence on how a question was closed; None while it waits for an answer.

    Raises:
        ValueError: the registry has no such version, or did not answer.
    """
    from components.registry.aliases import BY, STATE, STAYS  # imports MLflow, which only this function needs
    from components.registry.connection import in_one_line
    from components.registry.promotions import Promotions
    from pipelines.champion_challenger import connect

    with in_one_line("answer again once it does"):
        registry = connect(parameters.load(artifacts.PARAMS)).client
        tags = Promotions(registry, model, artifacts.promotion_locks()).version(version).tags
    state = tags.get(STATE, "never asked about")
    by = f" by {tags[BY]}" if BY in tags and state in ("approved", "promoted", *STAYS) else ""
    return None if state == "open" else f"{model} v{version} no longer waits for an answer, it was {state}{by}"


def ask(questions: list[dict[str, Any]], commit: str, report: str, say: Callable[[str], None]) -> None:
    """Start a run of `approval` for each question that has none yet.

    Args:
        questions: levels of verdict.json.
    """
    for level in questions:
        model, version, sigma = level["model"], level["challenger"], level["sigma"]
        say(f"{model} v{version} waits for a person: python -m pipelines.promote approve --sigma {sigma}, or refuse")
        facts = {"model": model, "version": version, "sigma": sigma, "until": level["expires"]}
        facts |= {"commit": commit, "report": report}
        if not start(facts, key=f"{model}-v{version}-{level['expires']}"):
            say("the flow approval is not deployed here: answer on the command line")


def start(facts: dict[str, Any], key: str) -> bool:
    """Start a run of `approval`, once per key; return False if the flow is not deployed."""
    beside_us = (deployment.name or "").endswith("-served")  # the deployment that runs this
    for name in (SERVED, DEPLOYMENT) if beside_us else (DEPLOYMENT, SERVED):
        try:
            run_deployment(
                f"{approval.name}/{name}",
                parameters=facts,
                timeout=0,  # do not wait for it
                as_subflow=False,
                idempotency_key=key,
            )
        except ObjectNotFound:
            continue
        return True
    return False


def close_expired(client: SyncPrefectClient) -> None:
    """Close questions that nobody answered in time, so that Prefect does not show them as waiting."""
    for run in waiting(client):
        until = run.state.state_details.pause_timeout if run.state else None
        if until and until < datetime.now(UTC):
            close(client, run, "nobody answered in time: the champion stays")


def close_answered(say: Callable[[str], None]) -> None:
    """Close questions of this project that were answered on the command line."""
    with get_client(sync_client=True) as client:
        for run in waiting(client):
            if not worktree.is_known(run.parameters["commit"]):
                continue  # another project's
            try:
                closed = closed_already(run.parameters["model"], run.parameters["version"])
            except ValueError as error:
                say(f"the question {run.name} stays open: {error}")
                continue
            if closed:
                close(client, run, closed)


def waiting(client: SyncPrefectClient) -> list[FlowRun]:
    """The questions that Prefect shows as waiting."""
    return client.read_flow_runs(
        flow_filter=FlowFilter(name=FlowFilterName(any_=[approval.name])),
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PAUSED]))),
    )


def close(client: SyncPrefectClient, run: FlowRun, reason: str) -> None:
    state: State = Cancelled(message=reason)
    client.set_flow_run_state(run.id, state, force=True)
