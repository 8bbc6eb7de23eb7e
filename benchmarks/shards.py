"""What it costs to certify in shards: 1, 2 and 4 processes that never meet, on one machine and as on two.

Certifies the test images of a workspace with a trained model. Each process gets a core of its own, as far as there are
some. Machines are copies of the workspace that share no more than an address. The tables are compared byte for byte.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.workspace import ROOT, read_params, write_params
from components.evaluation.report import text_table
from components.params import level_key
from pipelines import artifacts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sigma", type=float, default=0.5, help="default: %(default)s")
    parser.add_argument("--n", type=int, default=20_000, help="samples per image (default: %(default)s)")
    parser.add_argument("--every", type=int, default=5, help="certify every k-th test image (default: %(default)s)")
    options = parser.parse_args()
    command = [sys.executable, "-m", "pipelines.certify", "--sigma", level_key(options.sigma)]
    with tempfile.TemporaryDirectory() as folder:
        machines = [machine(Path(folder) / name, options) for name in ("one", "two")]
        tables, rows = [], []
        for name, shards, hosts, store in (
            ("1 process", 1, machines[:1], f"{folder}/1"),
            ("2 processes", 2, machines[:1], f"{folder}/2"),
            ("4 processes", 4, machines[:1], f"{folder}/4"),
            ("2 machines, an address", 2, machines, f"local://{folder}/away"),
        ):
            commands = [[*command, "--shard", f"{i + 1}/{shards}", "--rows", store] for i in range(shards)]
            computed = run(commands, hosts)
            again = run(commands[:1], hosts)
            merged = run([[*command, "--merge", store]], hosts)
            tables.append((hosts[0] / artifacts.certificates(options.sigma)).read_bytes())
            rows.append([name, f"{computed:.1f} s", f"{again:.1f} s", f"{merged:.1f} s"])
    assert len(set(tables)) == 1, "the tables differ"
    images = tables[0].count(b"\n") - 1
    print(f"{images} images, n = {options.n:,}, {len(os.sched_getaffinity(0))} cores; all tables are the same bytes")
    print(text_table(["shards as", "all of them", "one with nothing left to do", "merge"], rows))


def machine(folder: Path, options: argparse.Namespace) -> Path:
    """A copy of the workspace that has what certification reads."""
    for path in (artifacts.DESCRIPTION.parent, artifacts.model(options.sigma)):
        shutil.copytree(path, folder / path)
    raw = read_params(Path())
    raw["certify"] |= {"n": options.n, "every": options.every}
    write_params(folder, raw)
    return folder


def run(commands: list[list[str]], machines: list[Path]) -> float:
    """Seconds until all commands have ended, each in a machine's folder and on a core of its own."""
    cores, start = sorted(os.sched_getaffinity(0)), time.perf_counter()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "GIT_CEILING_DIRECTORIES": str(machines[0].parent)}
    running = [
        subprocess.Popen(
            ["taskset", "-c", str(cores[i % len(cores)]), *command],
            cwd=machines[i % len(machines)],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for i, command in enumerate(commands)
    ]
    assert all([process.wait() == 0 for process in running])
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
