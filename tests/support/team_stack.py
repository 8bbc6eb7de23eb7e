"""The servers of compose.yaml, from packages: PostgreSQL, an S3 store, MLflow. Each can be killed and started again."""

import contextlib
import importlib.util
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import psutil

from tests.support.registry import free_port
from tests.support.workspace import environment

USER, KEY, BUCKETS = "team", "secret-of-the-tests", ("mlflow", "dvc")
PROGRAMS = ("initdb", "postgres", "psql", "pg_dump", "pg_restore")


def missing() -> str | None:
    """What is not installed here that the servers need, in one sentence."""
    if not postgres_programs():
        return "PostgreSQL's server is not installed here (Debian: the package postgresql)"
    lacks = [name for name in ("psycopg2", "boto3", "dvc_s3") if not importlib.util.find_spec(name)]
    if lacks or not rclone():
        return f"{', '.join(lacks) or 'rclone'} is not installed here: `make setup TEAM=1`"
    return None


def rclone() -> str | None:
    return shutil.which("rclone", path=environment()["PATH"])


def postgres_programs() -> Path | None:
    """The folder of PostgreSQL's programs, which Debian keeps out of PATH."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    folders = [*debian, *map(Path, environment()["PATH"].split(os.pathsep))]
    return next((folder for folder in folders if all((folder / name).exists() for name in PROGRAMS)), None)


def unprivileged() -> dict[str, Any]:
    """As whom to start what refuses to run as root."""
    return {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}


class Process:
    """A server that is killed with all its children, and started again on the same port and data."""

    process: subprocess.Popen
    user: ClassVar[dict[str, Any]] = {}

    def begin(self, command: list[str], answers: Callable[[], object], **values: str) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                env=environment() | values,
                cwd="/",
                stdout=log,
                stderr=log,
                start_new_session=True,
                **self.user,
            )
        end = time.monotonic() + 120
        while not answers():
            assert self.process.poll() is None, self.log.read_text()[-2000:]
            assert time.monotonic() < end, f"no answer: {self.log.read_text()[-2000:]}"
            time.sleep(0.1)

    def __init__(self, folder: Path) -> None:
        self.folder, self.port, self.log = folder, free_port(), folder.with_suffix(".log")
        self.start()

    def start(self) -> None:
        raise NotImplementedError

    def kill(self) -> None:
        """kill -9 of the server and all that it has started."""
        below = psutil.Process(self.process.pid).children(recursive=True)
        self.process.kill()
        for child in below:  # those of PostgreSQL have sessions of their own
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        self.process.wait()
        psutil.wait_procs(below, timeout=30)


class Postgres(Process):
    """Databases `mlflow` and `prefect` of the user `team`."""

    user = unprivileged()

    def start(self) -> None:
        programs = postgres_programs()
        assert programs is not None
        new = not self.folder.exists()
        if new:
            self.folder.mkdir()
            password = self.folder.with_suffix(".password")
            password.write_text(KEY)
            if self.user:
                shutil.chown(self.folder, "postgres")
                shutil.chown(password, "postgres")
            options = ["-D", str(self.folder), "-U", USER, "-A", "scram-sha-256", f"--pwfile={password}", "-E", "UTF8"]
            subprocess.run([str(programs / "initdb"), *options], check=True, capture_output=True, cwd="/", **self.user)
        command = [str(programs / "postgres"), "-D", str(self.folder), "-p", str(self.port), "-k", ""]
        self.begin(command, lambda: self.client("psql", "-c", "select 1").returncode == 0)
        if new:
            for name in ("mlflow", "prefect"):
                self.sql(f"create database {name}", "postgres")

    def url(self, database: str, driver: str = "postgresql") -> str:
        return f"{driver}://{USER}:{KEY}@127.0.0.1:{self.port}/{database}"

    def client(self, program: str, *arguments: str, database: str = "postgres") -> subprocess.CompletedProcess[str]:
        """Run one of PostgreSQL's programs on a database."""
        command = [str(postgres_programs() / program), "-d", self.url(database), *arguments]
        return subprocess.run(command, capture_output=True, text=True)

    def sql(self, statement: str, database: str = "mlflow") -> str:
        done = self.client("psql", "-At", "-c", statement, database=database)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


class Store(Process):
    """An S3 store; its buckets are folders."""

    def start(self) -> None:
        for bucket in BUCKETS:
            (self.folder / bucket).mkdir(parents=True, exist_ok=True)
        options = ["--addr", f"127.0.0.1:{self.port}", "--auth-key", f"{USER},{KEY}", str(self.folder)]
        self.begin([str(rclone()), "serve", "s3", *options], self.answers, RCLONE_CONFIG=os.devnull)

    def answers(self) -> bool:
        try:
            urllib.request.urlopen(self.url, timeout=2).close()
        except urllib.error.HTTPError:  # it wants a signature
            return True
        except OSError:
            return False
        return True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def keys(self) -> dict[str, str]:
        return {"AWS_ACCESS_KEY_ID": USER, "AWS_SECRET_ACCESS_KEY": KEY, "AWS_DEFAULT_REGION": "us-east-1"}


class MLflow(Process):
    """A tracking server with its tables in PostgreSQL and its files in the S3 store."""

    def __init__(self, folder: Path, postgres: Postgres, store: Store, *, database: str = "mlflow", proxy: bool = True):
        self.postgres, self.store, self.database, self.proxy = postgres, store, database, proxy
        super().__init__(folder)

    def start(self) -> None:
        values = {
            "MLFLOW_BACKEND_STORE_URI": self.postgres.url(self.database),
            "MLFLOW_ARTIFACTS_DESTINATION": "s3://mlflow",
            "MLFLOW_S3_ENDPOINT_URL": self.store.url,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }
        direct = ["--no-serve-artifacts", "--default-artifact-root", "s3://mlflow/direct"]
        command = ["mlflow", "server", "--port", str(self.port), "--workers", "2", *([] if self.proxy else direct)]
        self.begin(command, self.answers, **values, **self.store.keys)

    def answers(self) -> bool:
        try:
            return urllib.request.urlopen(f"{self.url}/health", timeout=2).status == 200
        except OSError:
            return False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"
