"""The same stages as Prefect flows: DVC's graph as tasks, noise levels side by side, stage output in the task logs.

Prefect calls DVC, never the reverse: a task is `dvc repro --single-item STAGE`, so that DVC decides what is up to date.
`pipeline` runs in the working copy, for a person; `retrain` in a worktree of its own, on a schedule, up to promotion.
"""

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("DVC_NO_ANALYTICS", "1")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")  # 20 are few on a busy machine

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy, State, StateType
from prefect.futures import PrefectFuture
from prefect.runtime import deployment, flow_run
from prefect.settings import PREFECT_UI_URL
from prefect.states import Cancelled, Completed, Crashed
from prefect.task_runners import ThreadPoolTaskRunner

from components import params as parameters
from components.tools import notify
from components.tools.files import read_json
from components.tools.provenance import provenance
from pipelines import artifacts
from pipelines.cli import BAD_PARAMETERS, FAILED, STOPPED_EARLY, load_params
from pipelines.operation import approval, results, served, worktree
from pipelines.operation.dvc_stages import (
    ProcessGroups,
    Stage,
    StageStopped,
    dvc_repro,
    has_run,
    read_graph,
    stopped_at_the_end,
)
from pipelines.operation.places import Places
from pipelines.watchdog import FLOW_RUN, FLOW_RUN_URL

PREPARE = "prepare"
RETRY_SECONDS = 10
TASKS: ThreadPoolTaskRunner[Any] = ThreadPoolTaskRunner()
"""It has no limit: `Places` decides what computes at the same time, and a task that waits holds a thread."""


def is_failure(task: Any, task_run: Any, state: State) -> bool:
    """Whether a task is worth a retry: not when it stopped on request or at its time budget."""
    return not isinstance(state.result(raise_on_failure=False), StageStopped)


@task(task_run_name="{stage.name}", cache_policy=NO_CACHE, retry_condition_fn=is_failure)
def stage_task(stage: Stage, folder: Path, processes: ProcessGroups, places: Places, options: list[str]) -> bool:
    """Run one stage with DVC; False where DVC skipped it, as nothing has changed."""
    command = dvc_repro(stage.name, *options)
    with places.take(stage.name) as free:
        place = replace(free, environment=free.environment | named())
        lines = processes.run(stage.name, command, folder, get_run_logger().info, stage.timeout_minutes, place)
    return has_run(stage.name, lines)


def named() -> dict[str, str]:
    """Environment variables that tell a stage which flow run it belongs to; without a server there is no address."""
    if flow_run.id is None:
        return {}
    address = {FLOW_RUN_URL: str(flow_run.ui_url)} if PREFECT_UI_URL.value() else {}
    return {FLOW_RUN: str(flow_run.id)} | address


def run_stages(folder: Path, processes: ProcessGroups, options: dict[str, list[str]]) -> list[str]:
    """Run each stage of a workspace once the stages that it needs are done; return the names of those not skipped by
    DVC.

    Args:
        options: of `dvc repro`, by stage.
    """
    futures: dict[str, PrefectFuture[Any]] = {}
    places = Places(parameters.load(folder / artifacts.PARAMS))
    for stage in read_graph(folder):
        submitted = stage_task.with_options(retries=stage.retries, retry_delay_seconds=RETRY_SECONDS).submit(
            stage=stage,
            folder=folder,
            processes=processes,
            places=places,
            options=options.get(stage.name, []),
            wait_for=[futures[name] for name in stage.needs],
            return_state=False,
        )
        futures[stage.name] = submitted
    for future in futures.values():
        future.wait()
    unfinished = [future for future in futures.values() if not future.state.is_completed()]
    if unfinished:  # first the failure itself, not the stages that it left pending
        min(unfinished, key=lambda future: future.state.is_pending()).result()
    return [name for name, future in futures.items() if future.result()]


def run_name() -> str:
    """The display name of a run: its commit, its noise levels and what started it."""
    levels = " ".join(parameters.load(artifacts.PARAMS).noise_levels)
    return f"{provenance()['git_commit'][:7]}, sigma {levels}, {trigger()}"


def trigger() -> str:
    """What started this run: a schedule, a request to a deployment, or a command."""
    if "auto-scheduled" in flow_run.tags:
        return "scheduled"
    return "on request" if deployment.id else "by command"


@flow(name="train-certify-register", flow_run_name=run_name, task_runner=TASKS)  # type: ignore[arg-type]
def pipeline() -> State:
    """Run every stage of dvc.yaml in the working copy."""
    try:
        with stopped_at_the_end() as processes:
            run_stages(Path.cwd(), processes, {})
            results.publish(Path.cwd())
    except StageStopped as stop:
        return stopped(stop)
    return Completed()


@flow(name="retrain", flow_run_name=run_name, task_runner=TASKS)  # type: ignore[arg-type]
def retrain() -> State:
    """Bring the committed project up to date with its source, in its own worktree; then compare with the champions."""
    say = get_run_logger().info
    try:
        with worktree.only_run(say), stopped_at_the_end() as processes:
            sweep()
            commit = worktree.check_out(say)
            folder = artifacts.project_in(artifacts.scheduled())
            line = retrain_in(folder, processes)
            promote(folder, commit, processes)
    except StageStopped as stop:
        return stopped(stop)
    except Exception as error:
        facts = {"flow_run": flow_run.name, "error": str(error)}
        notify.send("failure", facts, str(flow_run.id), artifacts.notifications())
        raise
    say(line)
    return Completed(message=line)


def retrain_in(folder: Path, processes: ProcessGroups) -> str:
    """Run the stages; return a line about what had to run.

    `prepare` runs whenever the source's files have changed, which DVC does not see. It never uses DVC's run cache,
    which knows only the stage's parameters and would restore the data of an earlier source.
    """
    source = worktree.source_state(parameters.load(folder / artifacts.PARAMS))
    force = [] if worktree.prepared_from(folder) == source else ["--force"]
    ran = run_stages(folder, processes, {PREPARE: ["--no-run-cache", *force]})
    worktree.note_prepared_from(folder, source)
    results.publish(folder)
    always = {stage.name for stage in read_graph(folder) if stage.always_changed}
    new = [name for name in ran if name not in always | {PREPARE}]
    return f"new: {', '.join(new)}" if new else "nothing new: every stage was up to date"


def stopped(stop: StageStopped) -> State:
    """The state of a run that neither completed nor failed."""
    return Cancelled(name="StoppedEarly", message=str(stop))


@task(task_run_name="promote", cache_policy=NO_CACHE)
def promote(folder: Path, commit: str, processes: ProcessGroups) -> None:
    """Compare the challengers with the champions, publish the verdict, put open questions to a person and close those
    that were answered elsewhere."""
    say = get_run_logger().info
    processes.run("promote", [sys.executable, "-m", "pipelines.promote"], folder, say)
    verdict = folder / artifacts.PROMOTION
    report = (verdict / "verdict.md").read_text(encoding="utf-8")
    create_markdown_artifact(report, key="verdict", description=f"challengers and champions at commit {commit[:12]}")
    levels = read_json(verdict / "verdict.json", "run python -m pipelines.promote")["levels"]
    approval.ask([level for level in levels if level["approval"] == "asked"], commit, report, say)
    approval.close_answered(say)


def sweep() -> None:
    """Mark runs whose process was killed as crashed: Prefect shows them as running, but this run holds their lock."""
    with get_client(sync_client=True) as client:
        own = client.read_flow_run(flow_run.id)
        if own.deployment_id:
            running = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING]))
            of_deployment = FlowRunFilterDeploymentId(any_=[own.deployment_id])
            for run in client.read_flow_runs(flow_run_filter=FlowRunFilter(deployment_id=of_deployment, state=running)):
                if run.id != own.id:
                    state: State = Crashed(message="its process was killed; the next run goes on from what is finished")
                    client.set_flow_run_state(run.id, state, force=True)
        approval.close_expired(client)


def serve_schedule(cron: str) -> None:
    """Run on a schedule, in this process until it is stopped, what prefect.yaml deploys to a work pool.

    The deployments have names of their own: Prefect would take deployments of the same name from the work pool, and
    pause them at the end.
    """
    one_at_a_time = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.ENQUEUE)
    nightly: Any = retrain.to_deployment("nightly-served", cron=cron, concurrency_limit=one_at_a_time)
    questions: Any = approval.approval.to_deployment(approval.SERVED)
    served.serve(nightly, questions)


def run_once(chosen: Any) -> int:
    """Run a flow now, in this process; return the exit code."""
    try:
        state = chosen(return_state=True)
    except KeyboardInterrupt:
        print("stopped; what is finished is kept: run the same command again to go on", file=sys.stderr)
        return STOPPED_EARLY
    if state.is_completed():
        return 0
    if state.is_cancelled():
        print(state.message, file=sys.stderr)
        return STOPPED_EARLY
    print(f"error: {state.result(raise_on_failure=False)}", file=sys.stderr)
    return FAILED


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.flow", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run the flow once, here and now, in the working copy")
    run.add_argument("--worktree", action="store_true", help="do what a scheduled run does instead")
    schedule = commands.add_parser("serve", help="run on a schedule, without a work pool")
    schedule.add_argument("--cron", required=True, help='when, for example "0 2 * * *" for every night at two')
    options = parser.parse_args()
    load_params()
    if options.command == "serve":
        if not served.is_cron(options.cron):
            print(f"error: --cron is {options.cron!r}: give five fields, for example '0 2 * * *'", file=sys.stderr)
            sys.exit(BAD_PARAMETERS)
        serve_schedule(options.cron)
    else:
        sys.exit(run_once(retrain if options.worktree else pipeline))


if __name__ == "__main__":
    main()
