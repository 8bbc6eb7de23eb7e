"""The same stages as a Prefect flow: DVC's graph as tasks, noise levels side by side, stage output in the task logs.

Prefect calls DVC, never the reverse: a task is `dvc repro --single-item STAGE`, so that DVC decides what is up to date.
"""

import argparse
import asyncio
import os
import signal
import sys
from collections import deque
from typing import Any

os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("DVC_NO_ANALYTICS", "1")

from prefect import flow, get_run_logger, task
from prefect.futures import PrefectFuture
from prefect.task_runners import ThreadPoolTaskRunner

from components.device import available_cores
from pipelines.command import FAILED, load_params

LAST_LINES = 15


class StageFailed(RuntimeError):
    """A stage exited with an error; the message holds its name and its last lines."""


def stage_graph() -> dict[str, list[str]]:
    """Each stage of dvc.yaml with the stages it depends on, dependencies first."""
    import networkx
    from dvc.repo import Repo

    with Repo(".") as repo:
        graph = repo.index.graph  # edges run from a stage to what it depends on
        levels = networkx.topological_generations(graph.reverse())  # the noise levels of one stage stand together
        stages = [stage for level in levels for stage in sorted(level, key=lambda stage: stage.addressing)]
        return {stage.addressing: [needed.addressing for needed in graph.successors(stage)] for stage in stages}


@task(task_run_name="{stage}")
async def run_stage(stage: str) -> None:
    """Run one stage with DVC; skipped by DVC where nothing has changed."""
    logger = get_run_logger()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "dvc", "repro", "--single-item", stage),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,  # so that the trainer can be stopped along with DVC
        env=os.environ | {"PATH": os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])},
    )
    last: deque[str] = deque(maxlen=LAST_LINES)
    try:
        assert process.stdout
        async for raw in process.stdout:
            line = raw.decode(errors="replace").rstrip()
            if line:
                last.append(line)
                logger.info(line)
        code = await process.wait()
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGINT)
            await process.wait()
    if code:
        raise StageFailed(f"stage {stage} exited with {code}; its last lines:\n" + "\n".join(last))


@flow(name="train-certify-register", task_runner=ThreadPoolTaskRunner(max_workers=available_cores()))  # type: ignore[arg-type]
def pipeline() -> None:
    """Run every stage of dvc.yaml, each as soon as what it depends on is done."""
    futures: dict[str, PrefectFuture[Any]] = {}
    for stage, needed in stage_graph().items():
        wait_for = [futures[name] for name in needed]
        futures[stage] = run_stage.submit(stage=stage, wait_for=wait_for, return_state=False)
    for future in futures.values():
        future.wait()
    unfinished = [future for future in futures.values() if not future.state.is_completed()]
    if unfinished:  # first the failure itself, not the stages that it left pending
        min(unfinished, key=lambda future: future.state.is_pending()).result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run", help="run the flow once, here and now")
    parser.parse_args()
    load_params()
    try:
        pipeline()
    except StageFailed as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(FAILED)


if __name__ == "__main__":
    main()
