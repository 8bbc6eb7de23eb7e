"""The images that `make image` builds, built and used: without network, by docker or podman."""

import json
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.medium, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
BASE = "docker.io/library/python:3.11-slim-bookworm"
SHORT = (
    "sed -i -E 's/^  epochs: .*/  epochs: 1/; s/^  warmup_epochs: .*/  warmup_epochs: 1/; s/^  n: .*/  n: 500/; "
    "s/^  every: .*/  every: 10/' params.yaml"
)
"""Shortens the recipe on a volume."""


def locked(name):
    """The names of a lock's packages, as pip lists them."""
    return set(re.findall(r"^([a-z0-9._-]+)==", (ROOT / f"requirements/{name}.lock").read_text(), flags=re.M))


def run(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, **options)


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """What builds and runs images here, with the three images built."""
    for name in ("docker", "podman"):
        if shutil.which(name) and run(name, "info").returncode == 0:
            break
    else:
        pytest.skip("neither docker nor podman runs here")
    if run(name, "image", "inspect", BASE).returncode and run(name, "pull", BASE).returncode:
        pytest.skip(f"{name} has no image {BASE} and cannot fetch it")
    clone = tmp_path_factory.mktemp("build") / "clone"
    run("git", "clone", "-q", str(ROOT), str(clone), check=True)
    built = run("make", "image", f"BUILDER={name}", cwd=clone)
    assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-3000:]
    return name


@pytest.fixture(scope="module")
def volume(engine):
    name = f"smoothmix-test-{time.time_ns()}"
    run(engine, "volume", "create", name, check=True)
    yield name
    run(engine, "volume", "rm", "--force", name)


@pytest.fixture
def inside(engine, volume):
    """Runs a command in a container of an image, on the volume."""

    def start(image, *command, options=()):
        mounted = ("run", "--rm", "--network", "none", "--volume", f"{volume}:/work", *options)
        return run(engine, *mounted, f"smoothmix-{image}", *command)

    return start


def succeeds(done):
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize(("image", "lock"), [("train", "train"), ("serve", "serve"), ("pipeline", "runtime")])
def test_an_image_holds_its_lock_and_nothing_for_development(engine, image, lock):
    listed = run(
        engine, "run", "--rm", "--entrypoint", "python", f"smoothmix-{image}", "-m", "pip", "list", "--format=json"
    )
    names = {re.sub(r"[-_.]+", "-", package["name"]).lower() for package in json.loads(succeeds(listed))} - {"pip"}
    assert names <= locked(lock)
    assert {"torch", "numpy"} <= names
    if image == "train":
        assert not names & {"dvc", "mlflow", "prefect", "great-expectations"}


def test_a_copy_that_was_cut_short_is_made_again_over_git_s_read_only_files(inside):
    succeeds(inside("train", "touch", ".copy-unfinished"))
    assert inside("train", "git", "status", "--short").stdout == ""


def test_train_computes(inside):
    stages = "smoothmix prepare && smoothmix train --sigma 0.5 && smoothmix certify --sigma 0.5"
    succeeds(inside("train", "sh", "-c", f"{SHORT} && {stages} && test -s outputs/certificates/0.5/table.tsv"))


def test_the_pipeline_runs_a_recipe_that_was_committed_on_the_volume(inside):
    recorded = "git commit -qam Shorter && git log -1 --format=%an && git status --porcelain"
    assert succeeds(inside("pipeline", "sh", "-c", f"{SHORT} && {recorded}")) == "pipeline\n"
    succeeds(inside("pipeline"))
    kept = succeeds(inside("train", "ls", ".cache/smoothmix-pipeline"))
    assert kept.startswith("noise-"), "what is compiled stays on the volume"


def test_a_stopped_training_goes_on_where_it_was(engine, inside, volume):
    longer = "sed -i 's/^  epochs: 1$/  epochs: 4000/' params.yaml && exec smoothmix train --sigma 0.5"
    name = f"{volume}-stopped"
    inside("train", "sh", "-c", longer, options=("--detach", "--name", name))
    time.sleep(30)
    started = time.monotonic()
    stopping = subprocess.Popen([engine, "stop", "--time", "60", name])
    logs = run(engine, "logs", "--follow", name)
    stopping.wait()
    assert time.monotonic() - started < 50, "it was not killed"
    assert "run the same command again to go on" in logs.stdout + logs.stderr


def test_serve_answers_and_is_healthy_on_a_port_of_one_s_own(engine, inside, volume):
    name = f"{volume}-serve"
    settings = {
        "SERVING_TOKEN": "0123456789abcdef",
        "SERVING_PORT": "9000",
        "MLFLOW_TRACKING_URI": "sqlite:////work/.state/mlflow/mlflow.db",
    }
    variables = [part for key, value in settings.items() for part in ("--env", f"{key}={value}")]
    options = ("--detach", "--name", name, *variables)
    try:
        succeeds(inside("serve", "--model", "models:/digits-sigma-0.25/1", options=options))
        (started,) = json.loads(succeeds(run(engine, "inspect", name)))
        kind, *health = started["Config"]["Healthcheck"]["Test"]
        assert kind == "CMD"
        for _ in range(60):
            if (answered := run(engine, "exec", name, *health)).returncode == 0:
                break
            time.sleep(2)
        logs = run(engine, "logs", name)
        assert answered.returncode == 0, logs.stdout + logs.stderr + answered.stderr[-500:]
    finally:
        run(engine, "rm", "--force", name)


def test_serve_without_a_store_is_one_line(engine):
    token = ("--env", "SERVING_TOKEN=0123456789abcdef")
    done = run(engine, "run", "--rm", "--no-healthcheck", "--network", "none", *token, "smoothmix-serve")
    assert done.returncode == 1
    *_, said = done.stderr.splitlines()  # podman itself has more to say where there is no systemd
    assert said.startswith("error: there is no tracking store ")
    assert "set MLFLOW_TRACKING_URI to a tracking server" in said
    assert "Traceback" not in done.stderr
