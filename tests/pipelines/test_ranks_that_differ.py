"""Two working copies in one run, as on two machines, of which one has another recipe: nothing is computed."""

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

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
    description = load_description(folder / artifacts.DESCRIPTION)
    torch.manual_seed(0)
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
    return folder


def run_together(folders: list[Path], stage: str) -> list[subprocess.CompletedProcess[str]]:
    """A stage with one rank in each working copy; each has an agent of its own, as on machines of their own."""
    with socket.create_server(("localhost", 0)) as free:
        port = str(free.getsockname()[1])
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", str(len(folders)), "--nproc-per-node", "1"]
    torchrun += ["--master-addr", "localhost", "--master-port", port]
    command = ["-m", f"pipelines.{stage}", "--sigma", str(SIGMA)]
    started = [
        subprocess.Popen(
            [*torchrun, "--node-rank", str(rank), *command],
            cwd=folder,
            env=environment() | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, folder in enumerate(folders)
    ]
    said = [process.communicate(timeout=300) for process in started]
    return [
        subprocess.CompletedProcess(process.args, process.returncode, *both)
        for process, both in zip(started, said, strict=True)
    ]


@pytest.mark.parametrize(
    ("stage", "changes", "differences"),
    [
        (
            "train",
            {r"\nseed: 0": "\nseed: 1", "learning_rate: 0.05": "learning_rate: 0.01"},
            r"learning_rate is 0\.05 on {0} and 0\.01 on {1}; seed is 0 on {0} and 1 on {1}",
        ),
        ("certify", {r"\n  n: 10000": "\n  n: 20000"}, r"n is 10000 on {0} and 20000 on {1}"),
    ],
)
def test_ranks_with_other_recipes_are_refused_by_name_and_leave_nothing(
    prepared, tmp_path, stage, changes, differences
):
    folders = [shutil.copytree(prepared, tmp_path / name) for name in ("one", "other")]
    edit(folders[1] / "params.yaml", changes)
    before = [files_in(folder) for folder in folders]
    one, other = run_together(folders, stage)
    assert (one.returncode, other.returncode) == (1, 1), one.stderr + other.stderr
    (line,) = re.findall(r"^error: .*", one.stderr + other.stderr, re.MULTILINE)  # once per machine
    differences = differences.format(r"rank 0 on \S+", r"rank 1 on \S+")
    assert re.fullmatch(
        rf"error: the ranks are not at work on the same thing: {differences}: give all .* same params\.yaml.*", line
    )
    assert one.stdout + other.stdout == ""  # an epoch or an image would have been told
    assert [files_in(folder) for folder in folders] == before


def files_in(folder: Path) -> set[str]:
    """Files and folders."""
    return {os.path.relpath(path, folder) for path in folder.rglob("*")}
