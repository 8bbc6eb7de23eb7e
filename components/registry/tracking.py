"""Everything that is written to MLflow. Runs and versions are found by content, so every call can be repeated."""

import contextlib
import fcntl
import io
import os
import time
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import mlflow
from mlflow.entities import Dataset, DatasetInput, Metric, Param, RunTag
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from components.registry.aliases import CHALLENGER
from components.registry.connection import NOT_THERE, use_store
from components.tools.files import free, locked
from components.tools.wording import counted

TRAINING_KEY = "training_key"
CONTENT = "content_sha256"
"""Tags: identity of the training; hash of model and table of certificates."""
EPOCH_METRICS = ("loss", "noisy_accuracy", "val_noisy_accuracy", "learning_rate")
"""The columns of a training's history that are shown; the third where there is a validation split."""
CURVE = "certified_accuracy/over_radius_x1000"
"""Metric whose steps are radii. MLflow shows what has the same name before the slash in one section."""


def run_name(training_key: str, facts: dict[str, Any]) -> str:
    """What differs between runs most often, and the beginning of the key, which differs with everything else."""
    shown = [f"{facts['method']} sigma {facts['sigma']}"]
    if facts.get("epochs"):
        shown.append(counted(facts["epochs"], "epochs"))
    if "network" in facts:
        shown.append(facts["network"])
    if facts.get("seed"):
        shown.append(f"seed {facts['seed']}")
    return ", ".join([*shown, training_key[:7]])


def hashes_last(names: Iterable[str]) -> list[str]:
    """In the order given, but what nobody reads at the end."""
    return sorted(names, key=lambda name: name.endswith(("sha256", "git_commit")))


class Tracking:
    """One MLflow experiment on one server: MLFLOW_TRACKING_URI, or else the project's own store."""

    def __init__(self, store: Path, experiment: str) -> None:
        """Args:
        store: folder of the default store, an SQLite file and the artifacts; used without MLFLOW_TRACKING_URI.
        experiment: name of the experiment, created on first use.
        """
        self._location = (store.resolve() / "mlartifacts").as_uri() if use_store(store, make=True) else None
        self.uri = mlflow.get_tracking_uri()
        self._experiment = experiment
        self._running = store / "running"
        self._held: dict[str, IO[str]] = {}
        self.client = mlflow.MlflowClient()

    @cached_property
    def experiment_id(self) -> str:
        """The id of the experiment, which is created if it does not exist.

        Raises:
            ValueError: somebody deleted the experiment; that is not undone here.
        """
        found = self.client.get_experiment_by_name(self._experiment)
        if found is None:
            try:
                return str(self.client.create_experiment(self._experiment, artifact_location=self._location))
            except MlflowException as error:  # another process has made it meanwhile
                found = self.client.get_experiment_by_name(self._experiment)
                if error.error_code != "RESOURCE_ALREADY_EXISTS" or found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            raise ValueError(
                f"the experiment {self._experiment} was deleted in MLflow: restore it with `mlflow experiments restore "
                f"--experiment-id {found.experiment_id}`, or use another register.name"
            )
        return str(found.experiment_id)

    # --- runs ---------------------------------------------------------------------------------------------------

    def start_training_run(self, training_key: str, facts: dict[str, Any]) -> str:
        """Find this training's only run by its key, or create it; mark it as running and return its id."""
        self._hold(training_key)
        with locked(self._running / f"{training_key}.new"):  # else two processes could both create it
            run_id = self._first_run(training_key) or self._create_run(training_key, facts)
        self.client.update_run(run_id, status="RUNNING")
        return run_id

    def _first_run(self, training_key: str) -> str | None:
        """The id of the oldest run of a training: all processes that see several take the same one."""
        filter_string = f"tags.{TRAINING_KEY} = '{training_key}'"
        found = self.client.search_runs([self.experiment_id], filter_string)
        runs = sorted((run.info.start_time, run.info.run_id) for run in found)
        return str(runs[0][1]) if runs else None

    def _create_run(self, training_key: str, facts: dict[str, Any]) -> str:
        """The id of a new run, or of the run that another machine created at the same time."""
        tags, name = {TRAINING_KEY: training_key}, run_name(training_key, facts)
        run_id = str(self.client.create_run(self.experiment_id, tags=tags, run_name=name).info.run_id)
        first = self._first_run(training_key) or run_id
        if first != run_id:  # no lock is shared between machines
            self.client.delete_run(run_id)
            return first
        self.client.log_batch(run_id, params=[Param(key, str(value)) for key, value in facts.items()])
        return run_id

    def end_run(self, run_id: str, status: str) -> None:
        self.client.set_terminated(run_id, status)

    def _hold(self, training_key: str) -> None:
        """Show `sweep`, until this process ends, that a living process works on this training's run.

        This is a shared lock, which filelock does not have.
        """
        self._running.mkdir(parents=True, exist_ok=True)
        while training_key not in self._held:
            file = (self._running / training_key).open("w")
            fcntl.flock(file, fcntl.LOCK_SH)
            if os.fstat(file.fileno()).st_nlink:  # else it was pruned before the lock was ours
                self._held[training_key] = file

    def sweep(self) -> list[str]:
        """End the runs that killed processes left RUNNING; return their ids.

        A process that works on a run holds a lock in the store's folder, and the system releases it when the process
        dies, so a run whose lock is free is dead. Runs that were started from another state root are left alone,
        because nothing here shows whether their process lives.
        """
        ended = []
        for run in self.client.search_runs([self.experiment_id], "attributes.status = 'RUNNING'"):
            path = self._running / run.data.tags.get(TRAINING_KEY, "none")
            if not path.exists():
                continue
            with free(path) as nobody:
                if nobody:
                    self.end_run(run.info.run_id, "FINISHED" if CONTENT in run.data.tags else "KILLED")
                    ended.append(str(run.info.run_id))
        return ended

    def log_epochs(self, run_id: str, rows: Iterable[dict[Any, Any]], names: Iterable[str] = EPOCH_METRICS) -> None:
        """The columns `names` of rows of a history, each value at its epoch."""
        now = int(time.time() * 1000)
        found = [(name, row["epoch"], row.get(name)) for row in rows for name in names]
        known = [(name, epoch, value) for name, epoch, value in found if value is not None and value == value]
        self._log_metrics(run_id, [Metric(name, float(value), now, int(epoch)) for name, epoch, value in known])

    def log_missing_epochs(self, run_id: str, rows: list[dict[Any, Any]]) -> None:
        """Log what live logging missed of a history."""
        for name in EPOCH_METRICS:
            logged = {metric.step for metric in self.client.get_metric_history(run_id, name)}
            self.log_epochs(run_id, [row for row in rows if int(row["epoch"]) not in logged], [name])

    def find_complete_run(self, training_key: str, content: str) -> str | None:
        """The id of the training's run if it already holds this certification and still has its files, or None."""
        filter_string = f"tags.{TRAINING_KEY} = '{training_key}' and tags.{CONTENT} = '{content}'"
        for run in self.client.search_runs([self.experiment_id], filter_string):
            if self.client.list_artifacts(run.info.run_id):
                return str(run.info.run_id)
        return None

    def complete_run(
        self,
        run_id: str,
        content: str,
        *,
        metrics: dict[str, float],
        curve: list[tuple[float, float]],
        tags: dict[str, str],
        dataset: tuple[str, str, str],
        files: Iterable[tuple[Path, str]],
    ) -> None:
        """Add the certification to a training's run and finish it. The run is marked as complete last, so that an
        interrupted call is repeated.

        Args:
            curve: (radius, certified accuracy) points. MLflow draws a metric over its step, a whole number: here the
                radius in thousandths.
            tags: MLflow shows them as they were written, so hashes are written last.
            dataset: name, SHA-256, origin.
            files: (file or folder, folder in the run's artifacts) pairs.
        """
        now = int(time.time() * 1000)
        values = [Metric(name, value, now, 0) for name, value in metrics.items()]
        points = [Metric(CURVE, value, now, round(radius * 1000)) for radius, value in curve]
        self._log_metrics(run_id, values + points)
        self.client.log_batch(run_id, tags=[RunTag(key, tags[key]) for key in hashes_last(tags)])
        name, sha256, origin = dataset
        entry = Dataset(name=name, digest=sha256[:36], source_type="local", source=origin)
        self.client.log_inputs(run_id, [DatasetInput(entry)])
        for path, folder in files:
            (self.client.log_artifacts if path.is_dir() else self.client.log_artifact)(run_id, str(path), folder)
        self.client.set_tag(run_id, CONTENT, content)
        self.end_run(run_id, "FINISHED")

    def _log_metrics(self, run_id: str, metrics: list[Metric]) -> None:
        for start in range(0, len(metrics), 1000):  # the most that one request may hold
            self.client.log_batch(run_id, metrics=metrics[start : start + 1000])

    # --- registered models --------------------------------------------------------------------------------------

    def find_version(self, name: str, content: str) -> ModelVersion | None:
        """The first version of a registered model that holds this model and this table, if any is whole."""
        found = self.client.search_model_versions(f"tags.{CONTENT} = '{content}'")
        own = sorted((version for version in found if version.name == name), key=lambda version: int(version.version))
        return next((version for version in own if self._is_whole(version)), None)

    def _is_whole(self, version: ModelVersion) -> bool:
        """Whether a version can be loaded and judged: its registration ended well, and nobody has removed its run or
        its files since."""
        if version.status != "READY":
            return False
        try:
            run = self.client.get_run(str(version.run_id))
            files = mlflow.artifacts.list_artifacts(artifact_uri=f"models:/{version.name}/{version.version}")
        except MlflowException as error:
            if error.error_code in NOT_THERE:
                return False
            raise
        return run.info.lifecycle_stage == "active" and "MLmodel" in [file.path for file in files]

    def register(self, name: str, model_uri: str, content: str, tags: dict[str, str]) -> ModelVersion:
        """Create a version of a registered model, or return the one that another machine has made of this content
        meanwhile.

        The server numbers versions in order: a machine that sees a lower number than its own came second, and deletes
        its own version.
        """
        with contextlib.redirect_stderr(io.StringIO()):  # it would announce what the final table says
            ordered = {key: tags[key] for key in hashes_last(tags)}
            made = mlflow.register_model(model_uri, name, tags={**ordered, CONTENT: content})
        first = self.find_version(name, content) or made
        if int(first.version) < int(made.version):
            self.client.delete_model_version(name, str(made.version))
            self.client.delete_logged_model(model_uri.removeprefix("models:/"))
            return first
        return made

    def add_missing_tags(self, version: ModelVersion, tags: dict[str, str]) -> None:
        """Add the tags that a version lacks: those introduced after it was made, and radii that were not reported
        then."""
        for key in tags.keys() - version.tags.keys():
            self.client.set_model_version_tag(version.name, str(version.version), key, tags[key])

    def challenge(self, name: str, version: ModelVersion) -> None:
        """Point the alias `challenger` at a version."""
        try:
            if str(self.client.get_model_version_by_alias(name, CHALLENGER).version) == str(version.version):
                return
        except MlflowException:  # no challenger yet
            pass
        self.client.set_registered_model_alias(name, CHALLENGER, str(version.version))
