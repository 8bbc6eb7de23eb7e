"""The certify stage as a process: stopped on request and at its time budget."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from components.data.prepared import prepare, save_description, save_split
from components.data.sources import Source
from components.model import networks, weights
from components.tools.files import free, lock_of
from pipelines import artifacts
from tests.support.warm_start import PYTHON

pytestmark = pytest.mark.medium

ROOT = Path(__file__).parents[2]
SIGMA = 0.5


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A workspace with 40 test images of 8x8, every second of which is certified, and a network that knows nothing."""
    folder = tmp_path_factory.mktemp("prepared")
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 17, (80, 1, 8, 8)), np.arange(80) % 2
    source = Source(images=images, labels=labels, classes=["a", "b"], max_value=16, origin="random")
    train, test, description = prepare(source, "random", test_share=0.5, enlarge=1, seed=0)
    save_split(train, folder / artifacts.TRAIN_SPLIT)
    save_split(test, folder / artifacts.TEST_SPLIT)
    save_description(description, folder / artifacts.DESCRIPTION)
    torch.manual_seed(0)
    weights.save(
        networks.build("small_convnet", (1, 8, 8), 2),
        folder / artifacts.model(SIGMA),
        sigma=SIGMA,
        network="small_convnet",
        precision="float32",
        image_shape=[1, 8, 8],
        classes=["a", "b"],
        mean=None,
        std=None,
        training_key="none",
        training={},
        data_sha256=description.sha256,
    )
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    raw["noise_levels"] = {str(SIGMA): {}}
    raw["certify"] |= {"n": 4_000, "every": 2}
    (folder / "params.yaml").write_text(yaml.safe_dump(raw))
    return folder


@pytest.fixture(scope="module")
def whole(prepared, tmp_path_factory):
    """A workspace that was certified without interruption, by a command that started really."""
    folder = shutil.copytree(prepared, tmp_path_factory.mktemp("whole") / "workspace")
    done = start(folder, python=REAL)
    assert done.wait(300) == 0, done.stderr.read()
    return folder


@pytest.fixture
def workspace(prepared, tmp_path):
    return shutil.copytree(prepared, tmp_path / "workspace")


REAL = [sys.executable]


def start(workspace, *options, python=PYTHON):
    command = [*python, "-m", "pipelines.certify", "--sigma", str(SIGMA), *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=workspace, env=environment, stderr=subprocess.PIPE, text=True)


def rows(workspace):
    """The images that have a row, in the order in which these were written."""
    paths = workspace.glob(".state/partial_tables/*/rows-1-of-1.tsv")
    return [int(line.split("\t")[0]) for path in paths for line in path.read_text().splitlines()]


def table(workspace):
    return (workspace / artifacts.certificates(SIGMA)).read_bytes()


def test_the_identity_says_which_images_the_table_is_of(whole):
    identity = json.loads((whole / artifacts.certificates_identity(SIGMA)).read_text())
    assert (identity["every"], identity["images"]) == (2, 20)
    assert pd.read_csv(whole / artifacts.certificates(SIGMA), sep="\t")["idx"].tolist() == list(range(0, 40, 2))


def test_the_samples_of_one_forward_are_those_of_the_recipe_and_the_identity_says_so(workspace):
    raw = yaml.safe_load((workspace / "params.yaml").read_text())
    raw["certify"] |= {"n": 200, "every": 40, "block": 99}
    (workspace / "params.yaml").write_text(yaml.safe_dump(raw))
    assert start(workspace).wait(300) == 0
    assert json.loads((workspace / artifacts.certificates_identity(SIGMA)).read_text())["block"] == 99


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_request_to_stop_keeps_the_images_in_flight_and_the_rest_is_done_later(workspace, whole, number):
    running = start(workspace, python=REAL)
    while len(rows(workspace)) < 2:
        assert running.poll() is None
        time.sleep(0.01)
    running.send_signal(number)
    assert running.wait(120) == 75
    kept = rows(workspace)
    assert kept == sorted(kept)
    assert f"stopped after {len(kept)} of 20 images; all of it is kept" in running.stderr.read()
    assert start(workspace).wait(300) == 0
    assert table(workspace) == table(whole)
    assert sorted(rows(workspace)) == list(range(0, 40, 2)), "no image was written twice"


def test_a_budget_shorter_than_one_image_gets_on_all_the_same(workspace):
    for number in (1, 2):
        stopped = start(workspace, "--max-minutes", "0.00001")
        assert stopped.wait(300) == 75
        assert rows(workspace) == [0, 2][:number]


@pytest.mark.slow
def test_images_that_take_hours_are_not_waited_for(workspace):
    raw = yaml.safe_load((workspace / "params.yaml").read_text())
    raw["certify"]["n"] = 1_000_000_000
    (workspace / "params.yaml").write_text(yaml.safe_dump(raw))
    running = start(workspace, python=REAL)
    while not list(workspace.glob(".state/partial_tables/*/rows-1-of-1.tsv")):
        assert running.poll() is None
        time.sleep(0.05)
    time.sleep(2)
    begin = time.monotonic()
    running.send_signal(signal.SIGTERM)
    assert running.wait(300) == 75
    assert time.monotonic() - begin < 20, "the flow would have killed it"


# --- shards, by machines that never meet


def finish(workspace, *options):
    """Exit code and what was said."""
    running = start(workspace, *options)
    said = running.communicate(timeout=300)[1]
    return running.returncode, said


def machines(prepared, tmp_path, number):
    """Copies of the workspace that share nothing."""
    return [shutil.copytree(prepared, tmp_path / f"machine-{i}") for i in range(number)]


def shards_done(location):
    return sorted(path.name for path in location.glob("*/rows-*.tsv"))


def test_shards_on_machines_that_never_meet_make_the_table_of_one_process(prepared, whole, tmp_path):
    """In any order, one of them twice, in two numbers of shards; an address and a folder."""
    first, second, third = machines(prepared, tmp_path, 3)
    store = f"local://{tmp_path}/store"
    for machine, shard in ((second, "2/3"), (first, "1/3"), (first, "1/3")):
        assert finish(machine, "--shard", shard, "--rows", store)[0] == 0
        assert not (machine / artifacts.certificates(SIGMA)).exists()
    assert shards_done(tmp_path / "store") == ["rows-1-of-3.tsv", "rows-2-of-3.tsv"]
    code, said = finish(third, "--merge", store)
    assert code == 75
    assert (
        "6 images have no row yet: compute them with python -m pipelines.certify --sigma 0.5 --shard 3/3 --rows "
        in said
    )
    assert not (third / artifacts.certificates(SIGMA)).exists()
    assert finish(third, "--shard", "6/6")[0] == 0
    assert finish(second, "--merge", store, f"{third}/.state/partial_tables")[0] == 0
    assert table(second) == table(whole)
    identities = [(folder / artifacts.certificates_identity(SIGMA)).read_text() for folder in (second, whole)]
    assert identities[0] == identities[1]


def test_a_shard_takes_over_what_nobody_is_at_work_on(workspace, whole, tmp_path):
    shared = tmp_path / "shared"
    assert finish(workspace, "--shard", "2/4", "--rows", str(shared), "--max-minutes", "0.00001")[0] == 75
    assert shards_done(shared) == ["rows-2-of-4.tsv"]
    assert finish(workspace, "--shard", "4/4", "--rows", str(shared))[0] == 0
    rows_of = {path.name: path.read_text().count("\n") for path in shared.glob("*/rows-*.tsv")}
    assert rows_of == {"rows-2-of-4.tsv": 1, "rows-4-of-4.tsv": 19}
    assert finish(workspace, "--merge", str(shared))[0] == 0
    assert table(workspace) == table(whole)


def test_a_whole_run_waits_for_a_shard_that_writes_the_same_file(workspace, whole):
    """Its one process has the file of shard 1/1; the processes of torchrun those of as many shards."""
    assert finish(workspace, "--shard", "1/1", "--max-minutes", "0.00001")[0] == 75
    (rows_file,) = workspace.glob(".state/partial_tables/*/rows-1-of-1.tsv")
    command = [*PYTHON, "-m", "pipelines.certify", "--sigma", str(SIGMA)]
    with free(lock_of(rows_file)) as nobody:
        assert nobody
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        running = subprocess.Popen(command, cwd=workspace, env=environment, stdout=subprocess.PIPE, text=True)
        assert running.stdout.readline().startswith("waiting for the process that has")
    assert running.wait(300) == 0
    assert table(workspace) == table(whole)


def test_a_shard_is_computed_or_tables_are_merged_not_both(workspace):
    code, said = finish(workspace, "--shard", "1/2", "--merge", ".")
    assert code == 2
    assert "not allowed with argument" in said


def test_rows_of_another_certification_are_not_merged(prepared, workspace, tmp_path):
    (other,) = machines(prepared, tmp_path, 1)
    edited = (other / "params.yaml").read_text().replace("n: 4000", "n: 3000")
    (other / "params.yaml").write_text(edited)
    shared = str(tmp_path / "shared")
    assert finish(other, "--shard", "1/20", "--rows", shared)[0] == 0
    code, said = finish(workspace, "--merge", shared)
    assert code == 1
    assert "cannot be merged: n (3000 there, 4000 here)" in said
    code, said = finish(workspace, "--merge", f"local://{shared}")
    assert code == 1
    assert "has no rows of this certification" in said


def test_the_examples_of_job_arrays_compute_their_shards(workspace, whole):
    """As Slurm and Kubernetes would start them; the address is replaced by a folder."""
    examples, environment = ROOT / "examples/fleet", os.environ | {"PYTHONPATH": str(ROOT)}
    (container,) = yaml.safe_load((examples / "kubernetes.yaml").read_text())["spec"]["template"]["spec"]["containers"]
    (shell_command,) = container["args"]
    pod = [*container["command"], shell_command.replace("s3://certificates/rows", "shared_rows")]
    slurm = ["bash", str(examples / "slurm.sh"), str(SIGMA)]
    array = {"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "2"}
    subprocess.run(slurm, cwd=workspace, env=environment | array, check=True)
    subprocess.run(pod, cwd=workspace, env=environment | {"JOB_COMPLETION_INDEX": "4"}, check=True)
    assert shards_done(workspace / "shared_rows") == ["rows-2-of-2.tsv", "rows-5-of-8.tsv"]
    assert finish(workspace, "--merge", "shared_rows")[0] == 0
    assert table(workspace) == table(whole)
