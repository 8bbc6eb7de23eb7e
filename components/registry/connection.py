"""The connection to MLflow, a server or the project's own store, and one-line messages for its failures."""

import contextlib
import logging
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException

from components.tools.files import locked, remove

VARIABLE = "MLFLOW_TRACKING_URI"
DATABASE = "mlflow.db"
NOT_THERE = ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND")
"""MLflow's codes for what it does not have."""
_LIBRARIES = ("sqlalchemy", "alembic", "boto3", "botocore", "azure", "google")
"""The libraries that MLflow uses to reach its stores; it passes their errors on."""
_PACKAGES = {"botocore": "boto3", "psycopg2": "psycopg2-binary", "google": "google-cloud-storage"}
"""The package to install, where its name differs from the module's."""
_TEAM = ("psycopg2-binary", "boto3")
"""Packages of the extra `team`."""
_BROKEN = re.compile(
    r"duplicate column name|table \S+ already exists|no such (table|column)|malformed|not a database", re.IGNORECASE
)
"""SQLite's messages about a store that is incomplete or is no database."""
_OVERTAKEN = re.compile(r"UniqueViolation|UNIQUE constraint|DeadlockDetected", re.IGNORECASE)
"""A database's messages about a row that another client is writing at this moment."""

_own: str | None = None
"""The store that `use_store` has chosen. MLflow writes it to VARIABLE, where it is not the user's choice."""


def use_store(store: Path, *, make: bool = False) -> bool:
    """Point MLflow to the project's own store, unless MLFLOW_TRACKING_URI names a server; return whether it did.

    Args:
        store: folder of the project's own store.
        make: create the store if it does not exist.

    Raises:
        ValueError: there is no such store, or it cannot be made; says how to name a server.
    """
    global _own
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it raises these errors too
    given = os.environ.get(VARIABLE, "").strip()  # an empty variable is an unset one
    if given and given != _own:
        return False
    remedy = f"set {VARIABLE} to a tracking server"
    if make:
        try:
            store.mkdir(parents=True, exist_ok=True)
            _make_database(store)
        except OSError as error:
            raise ValueError(f"{store} cannot be written ({error.strerror}): make it writable, or {remedy}") from None
    elif not (store / DATABASE).exists():
        raise ValueError(f"there is no tracking store {store / DATABASE}: {remedy}, or run the register stage")
    _own = _uri(store / DATABASE)
    mlflow.set_tracking_uri(_own)
    return True


def _make_database(store: Path) -> None:
    """Create the SQLite store under a temporary name and rename it when it is complete. MLflow creates it in some
    seventy steps, and a store that a killed process left between them can be neither used nor repaired."""
    database, unfinished = store / DATABASE, f"{DATABASE}.new"
    with locked(store / "mlflow.lock"):
        if database.exists() and database.stat().st_size:
            return
        for file in store.glob(f"{unfinished}*"):  # with SQLite's own files beside it
            remove(file)
        uri = _uri(store / unfinished)
        mlflow.MlflowClient(uri, uri)  # this creates it
        (store / unfinished).replace(database)


def _uri(database: Path) -> str:
    return f"sqlite:///{database.resolve()}"


def despite_other_hosts(action: Callable[[], None], attempts: int = 4) -> None:
    """Call an action that finds what is there already, and again if another host was writing the same row."""
    for _ in range(attempts - 1):
        try:
            return action()
        except MlflowException as error:
            if not _OVERTAKEN.search(str(error)):
                raise
    return action()


@contextlib.contextmanager
def in_one_line(remedy: str) -> Iterator[None]:
    """Turn errors of MLflow and of its stores into a ValueError of one line.

    Args:
        remedy: what to do once MLflow answers again.
    """
    try:
        yield
    except Exception as error:
        sentence = explain(error, remedy)
        if sentence is None:
            raise
        raise ValueError(sentence) from None


def explain(error: Exception, remedy: str) -> str | None:
    """A failure of MLflow or of its stores in one line, with what to do; None for any other error."""
    reason = first_line(error)
    library = type(error).__module__.partition(".")[0]
    if isinstance(error, ModuleNotFoundError):
        module = (error.name or "").partition(".")[0]
        package = _PACKAGES.get(module, module)
        remedy = f"pip install {package}"
        if package in _TEAM:
            remedy = f"`make setup TEAM=1` installs it, elsewhere {remedy}"
        return f"MLflow cannot reach its store without the package {package}: {remedy}"
    if not isinstance(error, MlflowException) and library not in _LIBRARIES:
        return None
    uri = mlflow.get_tracking_uri()
    if uri.startswith("sqlite:") and _BROKEN.search(reason):
        return (
            f"the tracking store {uri.removeprefix('sqlite:///')} is broken ({reason}): move this file away, then run "
            "`python -m pipelines.register`, which makes a new one and registers the present models from their files; "
            "older runs and versions, verdicts and champions are lost, unless you have a copy to put back"
        )
    return f"MLflow did not answer ({reason}): {remedy}"


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def quoted(text: str) -> str:
    """A text quoted for an MLflow filter, which has two kinds of quotes and no way to escape them."""
    if "'" not in text:
        return f"'{text}'"
    if '"' not in text:
        return f'"{text}"'
    raise ValueError(f"{text} has both kinds of quotes, which MLflow cannot search for: use another register.name")
