"""Two working copies in one run, as on two machines: one has another recipe, or loses its process."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
import torch

from components.data.prepared import load_description
from components.model import networks, weights
from pipelines import artifacts
from tests.support.workspace import ROOT, edit, environment

pytestmark = [pytest.mark.medium, pytest.mark.slow]

SIGMA = 0.5


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with the digits, and a network that knows nothing; tests work in copies of it."""
    folder = tmp_path_factory.mktemp("prepared")
    shutil.copy2(ROOT / "params.yaml", folder)
    values = environment() | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", "pipelines.prepare"], cwd=folder, env=values, check=True)
    save_network(folder, seed=0)
    return folder


def save_network(folder: Path, seed: int) -> None:
    description = load_description(folder / artifacts.DESCRIPTION)
    torch.manual_seed(seed)
    weights.save(
        networks.build("small_convnet", description.image_shape, len(description.classes)),
        folder / artifacts.model(SIGMA),
        sigma=SIGMA,
        network="small_convnet",
        precision="float32",
        image_shape=description.image_shape,
        classes=description.classes,
        mean=None,
        std=None,
        training_key="none",
        training={},
        data_sha256=description.sha256,
    )


def start_together(
    folders: list[Path], stage: str, *options: str, restarts: int = 0, paths: tuple[Path, ...] = (ROOT, ROOT)
) -> list[subprocess.Popen[str]]:
    """A stage with one rank in each working copy; each has an agent of its own, as on machines of their own.

    Args:
        restarts: how often they may all start anew; else the ranks are numbered as the folders.
        paths: where each finds its code first.
    """
    with socket.create_server(("localhost", 0)) as free:
        port = str(free.getsockname()[1])
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", str(len(folders)), "--nproc-per-node", "1"]
    if restarts:
        torchrun += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{port}", "--rdzv-id", "any"]
        torchrun += ["--max-restarts", str(restarts)]
    else:
        torchrun += ["--master-addr", "localhost", "--master-port", port]
    command = ["-m", f"pipelines.{stage}", "--sigma", str(SIGMA), *options]
    started = []
    for rank, (folder, path) in enumerate(zip(folders, paths, strict=True)):
        own = ["--rdzv-conf", f"is_host={int(rank == 0)}"] if restarts else ["--node-rank", str(rank)]
        started.append(start_agent([*torchrun, *own, *command], folder, path))
    return started


def start_agent(command: Any, folder: Path, path: Path = ROOT) -> subprocess.Popen[str]:
    """An agent of torchrun, in a working copy."""
    ours = {"PYTHONPATH": f"{path}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    ours |= {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}  # else a new agent and an old one miss each other's store
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=environment() | ours, stdout=pipe, stderr=pipe, text=True)


def ends_of(started: list[subprocess.Popen[str]]) -> list[subprocess.CompletedProcess[str]]:
    said = [process.communicate(timeout=300) for process in started]
    return [
        subprocess.CompletedProcess(process.args, process.returncode, *both)
        for process, both in zip(started, said, strict=True)
    ]


def worker_of(agent: subprocess.Popen[str]) -> int:
    """The process that computes."""
    (pid,) = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
    return int(pid)


def newest_checkpoint(folder: Path) -> str:
    return max((path.name for path in folder.glob(".state/checkpoints/*/epoch-*.pt")), default="")


def other_recipe(folder: Path) -> None:
    changes = {r"\nseed: 0": "\nseed: 1", "learning_rate: 0.05": "learning_rate: 0.01", r"\n  n: 10000": "\n  n: 20000"}
    edit(folder / "params.yaml", changes)


def other_data(folder: Path) -> None:
    edit(folder / artifacts.DESCRIPTION, {r'"train_sha256": "\w': '"train_sha256": "?'})


def other_weights(folder: Path) -> None:
    save_network(folder, seed=1)


def other_code(folder: Path) -> None:
    for package in ("components", "pipelines"):
        shutil.copytree(ROOT / package, folder / package)
    shutil.copy(ROOT / "dvc.yaml", folder)
    with (folder / "components/training/attack.py").open("a", encoding="utf-8") as file:
        file.write("# another comment\n")


def other_version(folder: Path, name: str) -> None:
    """What a library says of its version, where code asks for it; torch finds its backends there, too."""
    told = folder / f"{name}-9.9.dist-info"
    told.mkdir()
    (told / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.9\n")
    (told / "entry_points.txt").write_text(distribution(name).read_text("entry_points.txt") or "")


def other_torch(folder: Path) -> None:
    other_version(folder, "torch")


def other_numpy(folder: Path) -> None:
    other_version(folder, "numpy")


@pytest.mark.parametrize(
    ("stage", "change", "differences"),
    [
        ("train", other_recipe, r"learning_rate is 0\.05 on {0} and 0\.01 on {1}; seed is 0 on {0} and 1 on {1}"),
        ("train", other_data, r"data_sha256 is \w+ on {0} and \w+ on {1}"),
        ("train", other_code, r"code_sha256 is \w+ on {0} and \w+ on {1}"),
        ("train", other_torch, r"torch is \S+ on {0} and 9\.9 on {1}"),
        ("train", other_numpy, r"numpy is \S+ on {0} and 9\.9 on {1}"),
        ("certify", other_recipe, r"n is 10000 on {0} and 20000 on {1}; seed is \d+ on {0} and \d+ on {1}"),
        ("certify", other_weights, r"weights_sha256 is \w+ on {0} and \w+ on {1}"),
    ],
)
def test_ranks_that_differ_are_refused_by_name_and_leave_nothing(prepared, tmp_path, stage, change, differences):
    folders = [shutil.copytree(prepared, tmp_path / name) for name in ("one", "other")]
    change(folders[1])
    before = [files_in(folder) for folder in folders]
    one, other = ends_of(start_together(folders, stage, paths=(ROOT, folders[1])))
    assert (one.returncode, other.returncode) == (1, 1), one.stderr + other.stderr
    said = re.findall(r"^error: .*", one.stderr + other.stderr, re.MULTILINE)
    assert len(said) == 1, one.stderr + other.stderr  # once per machine
    differences = differences.format(r"rank 0 on \S+", r"rank 1 on \S+")
    assert re.fullmatch(
        rf"error: the ranks are not at work on the same thing: {differences}: give all .* same params\.yaml.*", said[0]
    )
    assert one.stdout + other.stdout == ""  # an epoch or an image would have been told
    assert [files_in(folder) for folder in folders] == before


def files_in(folder: Path) -> set[str]:
    """Without what importing code leaves."""
    return {os.path.relpath(path, folder) for path in folder.rglob("*") if path.suffix not in (".pyc", "")}


@pytest.mark.parametrize(
    ("lost", "number", "replaced", "seconds"),
    [
        pytest.param(0, signal.SIGKILL, False, 60, id="first"),
        pytest.param(1, signal.SIGKILL, False, 60, id="second"),
        pytest.param(1, signal.SIGKILL, True, 60, id="a machine in its place"),
        pytest.param(1, signal.SIGSTOP, False, 75, id="it hangs"),
    ],
)
def test_a_training_goes_on_soon_after_a_machine_lost_its_process(prepared, tmp_path, lost, number, replaced, seconds):
    """By torchrun's rendezvous c10d, with one folder of state for all: to the weights of a training left alone. After a
    hang, torchrun gives the one that hangs 30 s to end by itself."""
    whole = [shutil.copytree(prepared, tmp_path / name) for name in ("left alone", "its other")]
    killed = [shutil.copytree(prepared, tmp_path / name) for name in ("killed", "its other, too")]
    for one, other in (whole, killed):
        (one / ".state").mkdir(exist_ok=True)
        (other / ".state").symlink_to(one / ".state")
    for folder in (*whole, *killed):
        edit(folder / "params.yaml", {r"epochs: 30": "epochs: 40", "method: smoothmix": "method: gaussian"})
        shutil.rmtree(folder / artifacts.model(SIGMA))
    often = ("--checkpoint-seconds", "0.2")
    agents = start_together(killed, "train", *often, restarts=3)
    try:
        wait_until(lambda: newest_checkpoint(killed[0]) > "epoch-00003", seconds=120)
        worker = worker_of(agents[lost])
        if replaced:
            agents[lost].kill()
            agents[lost].wait()  # the worker lives on, and holds its pipes
        os.kill(worker, number)
        since = time.monotonic()
        if replaced:
            agents[lost] = start_agent(agents[lost].args, killed[lost])
        time.sleep(1)  # the checkpoint under way
        before = newest_checkpoint(killed[0])
        wait_until(lambda: newest_checkpoint(killed[0]) > before, seconds)
        print(f"went on after {time.monotonic() - since:.0f} s")
        ends = ends_of(agents)
    finally:
        for agent in agents:
            with suppress(ProcessLookupError):
                agent.terminate()
    assert [end.returncode for end in ends] == [0, 0], ends[0].stderr + ends[1].stderr
    assert "Traceback" not in ends[0].stderr + ends[1].stderr
    assert max(end.stderr.count("Exception raised from") for end in ends) <= 2  # of torch's C++, a page for each
    assert "continuing after epoch" in ends[0].stdout + ends[1].stdout
    assert [end.returncode for end in ends_of(start_together(whole, "train", *often, restarts=1))] == [0, 0]
    (one,), (other,) = weights_in(killed), weights_in(whole)
    assert one == other


def wait_until(holds: Callable[[], object], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.05)


def weights_in(folders: list[Path]) -> list[bytes]:
    """In the working copy whose rank was the first, whichever that was."""
    paths = [folder / artifacts.model(SIGMA) / "weights.safetensors" for folder in folders]
    return [path.read_bytes() for path in paths if path.exists()]


def test_the_example_for_slurm_trains_on_the_nodes_that_slurm_names(prepared, tmp_path):
    """Without Slurm: a job of one node, whose two programs are replaced."""
    folder = tmp_path / "project"
    shutil.copytree(prepared, folder, symlinks=True)
    edit(folder / "params.yaml", {"epochs: 30": "epochs: 1", "warmup_epochs: 3": "warmup_epochs: 1"})
    programs = {"srun": 'exec "$@"', "scontrol": "echo localhost"}
    for name, line in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    job = {"SLURM_NTASKS": "1", "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node[1-2]", "PYTHONPATH": str(ROOT)}
    values = environment() | job | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    command = ["bash", str(ROOT / "examples/fleet/slurm_train.sh"), str(SIGMA)]
    done = subprocess.run(command, cwd=folder, env=values, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "epoch 1 of 1" in done.stdout + done.stderr
