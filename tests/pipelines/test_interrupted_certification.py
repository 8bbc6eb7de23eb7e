"""A certification of the whole pipeline that is killed, shared by two processes, or done in steps: the same table."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from tests.support.workspace import copy_results, edit, environment, kill_when, run, stages_run

pytestmark = [pytest.mark.medium, pytest.mark.slow]

CERTIFY = [sys.executable, "-m", "pipelines.certify", "--sigma", "1.0"]
TWO_PROCESSES = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "3"]


def rows_kept(project: Path) -> int:
    return sum(path.read_text().count("\n") for path in project.glob(".state/partial_tables/*/rows-*.tsv"))


def test_a_killed_certification_goes_on_and_ends_with_the_same_table(project, tmp_path):
    copy = copy_results(project, tmp_path)
    edit(copy / "params.yaml", {r"\n  n: 200": "\n  n: 20000"})
    table = copy / "outputs/certificates/1.0/table.tsv"
    assert run(copy, *CERTIFY).returncode == 0
    whole = table.read_bytes()
    table.unlink()
    shutil.rmtree(copy / ".state")
    kill_when(lambda: any(copy.glob(".state/partial_tables/*/rows-*.tsv")) and rows_kept(copy) >= 3, copy, CERTIFY)
    kept = rows_kept(copy)
    assert run(copy, *CERTIFY).returncode == 0
    assert 3 <= kept < 15
    assert table.read_bytes() == whole


@pytest.fixture
def certified(project, tmp_path):
    """A copy of the project where certifying takes seconds, its table, and what an uninterrupted run writes there."""
    copy = copy_results(project, tmp_path)
    edit(copy / "params.yaml", {r"\n  n: 200": "\n  n: 60000"})
    table = copy / "outputs/certificates/1.0/table.tsv"
    assert run(copy, *CERTIFY).returncode == 0
    whole = table.read_bytes()
    forget(copy, table)
    return copy, table, whole


def forget(project: Path, table: Path) -> None:
    table.unlink()
    shutil.rmtree(project / ".state")


def test_a_certification_killed_at_twenty_random_moments_ends_with_the_same_table(certified):
    copy, table, whole = certified
    moments, kills, longest = random.Random(0), 0, 12.0
    while kills < 20:
        process = subprocess.Popen(CERTIFY, cwd=copy, env=environment(), stderr=subprocess.DEVNULL)
        try:
            process.wait(moments.uniform(0, longest))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
            continue
        assert table.read_bytes() == whole
        assert rows_kept(copy) == whole.count(b"\n") - 1, "an image was computed twice or lost"
        forget(copy, table)
    assert run(copy, *CERTIFY).returncode == 0
    assert table.read_bytes() == whole


@pytest.mark.parametrize("killed", [False, True])
def test_two_processes_give_the_table_of_one_also_when_a_worker_is_killed(certified, killed):
    copy, table, whole = certified
    command = [sys.executable, *TWO_PROCESSES, *CERTIFY[1:]]
    process = subprocess.Popen(command, cwd=copy, env=environment(), stderr=subprocess.PIPE, text=True)
    if killed:
        while rows_kept(copy) < 3:
            time.sleep(0.01)
        workers = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
        os.kill(int(workers[-1]), signal.SIGKILL)
    assert process.wait(300) == 0, process.stderr.read()
    assert table.read_bytes() == whole
    assert len(list(copy.glob(".state/partial_tables/*/rows-*.tsv"))) == 2
    assert rows_kept(copy) == whole.count(b"\n") - 1, "an image was computed twice or lost"


def test_preset_radii_go_through_the_whole_pipeline_and_are_topped_up(project, tmp_path):
    copy = copy_results(project, tmp_path)
    preset = {r"mode: reference": "mode: sequential", r"\n  n: 200": "\n  n: 1000"}
    edit(copy / "params.yaml", preset)
    ran = stages_run(run(copy, "dvc", "repro"))
    assert ran == ["brought", "certify@0.5", "certify@1.0", "evaluate", "register"]
    summary = json.loads((copy / "outputs/evaluation/metrics.json").read_text())["1.0"]
    assert "acr" not in summary
    assert list(summary["certified_accuracy"]) == list(summary["undecided"]) == ["0.25", "0.5", "1.0"]
    assert summary["mean_n"] < 1000
    few = pd.read_csv(copy / "outputs/certificates/1.0/table.tsv", sep="\t")
    edit(copy / "params.yaml", {r"\n  n: 1000": "\n  n: 20000"})
    assert run(copy, *CERTIFY).returncode == 0
    topped_up = (copy / "outputs/certificates/1.0/table.tsv").read_bytes()
    forget(copy, copy / "outputs/certificates/1.0/table.tsv")
    assert run(copy, *CERTIFY).returncode == 0
    assert (copy / "outputs/certificates/1.0/table.tsv").read_bytes() == topped_up
    more = pd.read_csv(copy / "outputs/certificates/1.0/table.tsv", sep="\t")
    decided = ~few["decisions"].str.contains("undecided")
    assert 0 < decided.sum() < len(few)
    pd.testing.assert_frame_equal(few[decided], more[decided])
