"""The train stage as a process: killed, stopped, out of budget, out of disk, in several processes."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from components.data.prepared import Split, prepare, save_description, save_split
from components.data.sources import Source
from components.tools.files import read_json
from components.tools.hashing import hash_file
from pipelines import artifacts
from tests.support.warm_start import PYTHON

pytestmark = pytest.mark.medium

ROOT = Path(__file__).parents[2]
SIGMA = 0.5
TRAIN = {
    "network": "small_convnet",
    "epochs": 2,
    "batch_size": 12,
    "warmup_epochs": 2,
    "augment": "crop_flip",
    "smoothmix": {
        "num_noises": 2,
        "attack_steps": 1,
        "step_size": 0.5,
        "mix_weight": 1.0,
        "clean_step": 0,
        "attack_radius": None,
    },
}
"""Eight steps per epoch."""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A workspace with 48 training images of 8x8 and a recipe for a second; tests work in copies of it."""
    folder = tmp_path_factory.mktemp("prepared")
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    images = rng.integers(0, 17, (60, 1, 8, 8))
    source = Source(images=images, labels=labels, classes=["a", "b", "c"], max_value=16, origin="random")
    train, test, description = prepare(source, "random", test_share=0.2, enlarge=1, seed=0)
    save_split(train, folder / artifacts.TRAIN_SPLIT)
    save_split(test, folder / artifacts.TEST_SPLIT)
    save_description(description, folder / artifacts.DESCRIPTION)
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    raw["noise_levels"] = {str(SIGMA): {}}
    raw["train"] |= TRAIN
    (folder / "params.yaml").write_text(yaml.safe_dump(raw))
    (folder / "no_mlflow/mlflow").mkdir(parents=True)  # importing the real one takes longer than this training
    (folder / "no_mlflow/mlflow/__init__.py").write_text("raise ImportError\n")
    return folder


@pytest.fixture
def workspace(prepared, tmp_path):
    return shutil.copytree(prepared, tmp_path / "workspace")


@pytest.fixture(scope="module")
def whole(prepared, tmp_path_factory):
    """A workspace whose training ran without interruption, really started."""
    folder = shutil.copytree(prepared, tmp_path_factory.mktemp("whole") / "workspace")
    assert finish(start(folder, python=REAL)).returncode == 0
    return folder


def change(workspace, **changes):
    raw = yaml.safe_load((workspace / "params.yaml").read_text())
    raw["train"] |= changes
    (workspace / "params.yaml").write_text(yaml.safe_dump(raw))


STARTED = []


@pytest.fixture(autouse=True)
def leave_nothing_running():
    yield
    for process in STARTED:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    STARTED.clear()


REAL = [sys.executable]


def start(workspace, *options, python=PYTHON):
    process = subprocess.Popen(
        [*python, "-m", "pipelines.train", "--sigma", str(SIGMA), *options],
        cwd=workspace,
        env=os.environ | {"PYTHONPATH": f"{workspace / 'no_mlflow'}{os.pathsep}{ROOT}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    STARTED.append(process)
    return process


def finish(process):
    out, errors = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, out, errors)


def train(workspace, *options):
    return finish(start(workspace, *options))


def checkpoints(workspace):
    return sorted(workspace.glob(".state/checkpoints/*/epoch-*.pt"))


def steps_done(workspace):
    """How far the newest checkpoint is, in steps."""
    names = [re.findall(r"\d+", path.stem) for path in checkpoints(workspace)]
    return max((8 * int(epoch) + int(step) for epoch, step in names), default=0)


def wait_for(process, condition):
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)


def assert_no_outs(workspace):
    assert not (workspace / artifacts.model(SIGMA)).exists()
    assert not (workspace / artifacts.history(SIGMA)).exists()


def assert_same_outs(workspace, whole):
    """Weights and card to the byte; the history in everything but the clock."""
    for name in ("weights.safetensors", "model.json"):
        path = artifacts.model(SIGMA) / name
        assert (workspace / path).read_bytes() == (whole / path).read_bytes(), name
    histories = [
        pd.read_csv(folder / artifacts.history(SIGMA)).drop(columns="seconds") for folder in (workspace, whole)
    ]
    pd.testing.assert_frame_equal(*histories, check_exact=True)


def last_line(text):
    return text.rstrip("\n").rsplit("\n", 1)[-1]


# --- one process -------------------------------------------------------------------------------------------------


def test_a_training_at_its_budget_exits_with_75_writes_no_outs_and_goes_on(workspace, whole):
    result = train(workspace, "--max-minutes", "0.00001")
    assert result.returncode == 75, result.stderr
    said = "stopped after epoch 0 of 2, step 1; all of it is kept: run the same command again to go on"
    assert last_line(result.stderr) == said
    assert_no_outs(workspace)
    again = train(workspace)
    assert "continuing after epoch 0 of 2, step 1 from" in again.stdout
    assert_same_outs(workspace, whole)


def test_catrs_stops_within_its_preparation_goes_on_and_depends_on_the_content_of_the_model(workspace, whole):
    model = shutil.copytree(whole / artifacts.model(SIGMA), workspace / "model")
    own = {"targets": "model", "targets_sigma": SIGMA, "targets_copies": 2**12, "num_noises": 2, "attack_steps": 1}
    change(workspace, method="catrs", catrs=own)
    result = train(workspace, "--max-minutes", "0.00001")
    assert result.returncode == 75, result.stderr
    said = "stopped after epoch 0 of 2, 33.3% prepared; all of it is kept: run the same command again to go on"
    assert last_line(result.stderr) == said
    model.rename(workspace / "elsewhere")
    change(workspace, catrs=own | {"targets": "elsewhere"})
    again = train(workspace)
    assert again.returncode == 0, again.stderr
    assert "continuing after epoch 0 of 2 from" in again.stdout
    card = read_json(workspace / artifacts.model(SIGMA) / "model.json", "")["training"]
    assert card["catrs.targets"] == hash_file(workspace / "elsewhere/weights.safetensors")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_training_that_is_asked_to_stop_saves_and_exits_with_75(workspace, whole, number):
    change(workspace, epochs=2000)
    process = start(workspace, "--checkpoint-seconds", "0.01")
    wait_for(process, lambda: checkpoints(workspace))
    process.send_signal(number)
    result = finish(process)
    assert result.returncode == 75, result.stderr
    assert re.fullmatch(r"stopped after epoch \d+ of 2000(, step \d)?; all of it is kept: .*", last_line(result.stderr))
    assert_no_outs(workspace)


def test_a_training_that_diverges_names_step_and_last_good_checkpoint_in_one_line(workspace):
    assert train(workspace, "--max-minutes", "0.00001").returncode == 75
    change(workspace, learning_rate=1e38)
    result = train(workspace)
    assert result.returncode == 1
    line = last_line(result.stderr)
    assert line.startswith("error: the loss is not finite at epoch 0, step 1: lower train.learning_rate (1e+38); the")
    assert line.endswith("the last good checkpoint is the start")
    assert_no_outs(workspace)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's device that is always full")
def test_a_full_disk_is_one_line_and_the_older_checkpoints_are_gone_on_from(workspace, whole):
    assert train(workspace, "--max-minutes", "0.00001").returncode == 75
    (kept,) = checkpoints(workspace)
    (kept.parent / "unfinished.tmp").symlink_to("/dev/full")
    result = train(workspace)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert re.match(r"error: the checkpoint .* cannot be written \(No space left on device\)", last_line(result.stderr))
    assert checkpoints(workspace) == [kept]
    assert train(workspace).returncode == 0
    assert_same_outs(workspace, whole)


def test_a_validation_split_adds_a_column_and_changes_nothing_else(workspace, whole):
    """Of a finished training, the figure of the last epoch is still to be had."""
    rng = np.random.default_rng(1)
    val = Split(rng.integers(0, 17, (30, 1, 8, 8), dtype=np.uint8), np.arange(30) % 3)
    save_split(val, workspace / artifacts.VAL_SPLIT)
    assert train(workspace).returncode == 0
    history = pd.read_csv(workspace / artifacts.history(SIGMA))
    assert history.pop("val_noisy_accuracy").between(0, 1).all()
    history.to_csv(workspace / artifacts.history(SIGMA), index=False)
    assert_same_outs(workspace, whole)
    save_split(Split(val.images, 2 - val.labels), workspace / artifacts.VAL_SPLIT)
    assert "continuing after epoch 2 of 2 from" in train(workspace).stdout
    assert pd.read_csv(workspace / artifacts.history(SIGMA))["val_noisy_accuracy"].isna().tolist() == [True, False]


def test_a_budget_that_is_no_positive_number_is_refused(workspace):
    for value in ("0", "nan"):
        result = train(workspace, "--max-minutes", value)
        assert result.returncode == 2
        assert "--max-minutes" in last_line(result.stderr)


@pytest.mark.slow
def test_a_training_killed_at_twenty_random_moments_ends_with_the_same_weights(workspace, tmp_path):
    change(workspace, network="resnet20", epochs=30)
    twin = shutil.copytree(workspace, tmp_path / "twin")
    assert train(twin).returncode == 0
    rng = random.Random(0)
    for _ in range(20):
        target = steps_done(workspace) + rng.randrange(1, 7)
        process = start(workspace, "--checkpoint-seconds", "0.001", python=REAL)
        wait_for(process, lambda: steps_done(workspace) >= target)  # noqa: B023
        time.sleep(rng.uniform(0, 0.1))
        assert process.poll() is None
        process.kill()
        process.communicate()
    again = train(workspace)
    assert "continuing after epoch" in again.stdout
    assert len(checkpoints(workspace)) <= 2
    assert_same_outs(workspace, twin)


# --- several processes -------------------------------------------------------------------------------------------


def workers(process):
    """The processes that train: the launcher's children but for multiprocessing's own."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.fixture
def in_two(workspace):
    """A workspace whose training takes two processes."""
    change(workspace, processes=2)
    return workspace


@pytest.mark.slow
def test_two_processes_stop_at_the_budget_and_go_on_from_one_checkpoint(in_two):
    result = train(in_two, "--max-minutes", "0.00001")
    assert result.returncode == 75, result.stderr
    assert result.stderr.count("stopped after epoch 0 of 2, step 1; all of it is kept") == 1
    assert_no_outs(in_two)
    again = train(in_two)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("continuing after epoch 0 of 2, step 1") == 1
    assert read_json(in_two / artifacts.model(SIGMA) / "model.json", "")["training"]["processes"] == 2


def test_an_error_in_two_processes_is_one_line_and_is_not_repeated(in_two):
    change(in_two, learning_rate=1e38)
    result = train(in_two)
    assert result.returncode == 1
    assert result.stderr.count("error:") == 1
    assert "Traceback" not in result.stderr
    assert last_line(result.stderr).startswith("error: the loss is not finite at epoch 0")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopping_the_launcher_stops_its_processes(in_two, number):
    change(in_two, epochs=2000)
    process = start(in_two, python=REAL)
    wait_for(process, lambda: checkpoints(in_two))
    pids = workers(process)
    assert len(pids) == 2
    process.send_signal(number)
    result = finish(process)
    assert result.returncode == (-9 if number == signal.SIGKILL else 75), result.stderr
    end = time.monotonic() + 10
    while any(map(running, pids)):
        assert time.monotonic() < end, "processes are left behind"
        time.sleep(0.05)
    assert_no_outs(in_two)


@pytest.mark.slow
def test_a_killed_process_starts_all_anew_and_the_weights_are_the_same(in_two, tmp_path):
    change(in_two, epochs=30)
    twin = shutil.copytree(in_two, tmp_path / "twin")
    assert train(twin).returncode == 0
    process = start(in_two, python=REAL)
    wait_for(process, lambda: steps_done(in_two) >= 16)
    os.kill(workers(process)[1], signal.SIGKILL)
    result = finish(process)
    assert result.returncode == 0, result.stderr
    assert "continuing after epoch" in result.stdout
    assert_same_outs(in_two, twin)
