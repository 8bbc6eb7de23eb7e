"""Schedules and runs deployments in one process, without a work pool: Prefect's `serve`, but it always ends when
asked."""

import asyncio
import os
import threading
from typing import Any

import psutil
from prefect.client.schemas.schedules import CronSchedule
from prefect.runner import Runner

SECONDS_TO_END = 45.0
"""Time to end after a request. Prefect queries its server for every run and schedule, and retries if the server is
gone."""


class Served(Runner):
    """A runner that ends in time, whether or not the Prefect server answers."""

    def handle_sigterm(self, *arguments: Any, **options: Any) -> None:
        end_in_time()
        super().handle_sigterm(*arguments, **options)

    async def __aexit__(self, *raised: Any) -> None:  # on Ctrl-C
        end_in_time()
        await super().__aexit__(*raised)


def end_in_time() -> None:
    """End this process after `SECONDS_TO_END`, if it still lives then."""
    timer = threading.Timer(SECONDS_TO_END, _end_now)
    timer.daemon = True
    timer.start()


def _end_now() -> None:
    for flow_run in psutil.Process().children():
        flow_run.kill()  # its stages see that, and stop with their progress kept
    os._exit(1)


def serve(*deployments: Any) -> None:
    """Run deployments as they are scheduled, until SIGTERM or Ctrl-C."""
    runner = Served()
    for deployment in deployments:
        runner.add_deployment(deployment)
        print(f"serving {deployment.flow_name}/{deployment.name}; stop with Ctrl-C", flush=True)
    try:
        asyncio.run(runner.start())
    except KeyboardInterrupt:
        print("stopped", flush=True)


def is_cron(text: str) -> bool:
    try:
        CronSchedule(cron=text)
    except ValueError:
        return False
    return True
