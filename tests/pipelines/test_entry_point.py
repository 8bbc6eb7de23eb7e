"""`smoothmix NAME ...`: the commands of the project in which one stands."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.__main__ import GROUPS, commands, first_sentence, listing

ROOT = Path(__file__).parents[2]


def smoothmix(bin_folder, cwd, *arguments):
    return subprocess.run([bin_folder / "smoothmix", *arguments], cwd=cwd, capture_output=True, text=True)


@pytest.fixture
def bin_folder(tmp_path):
    """As `make setup` makes it: the script beside the environment's python."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (folder / "python").chmod(0o755)
    (folder / "smoothmix").symlink_to(ROOT / "pipelines/smoothmix.sh")
    return folder


def test_every_command_is_listed_once_with_a_line_of_its_own():
    said = commands()
    assert {"check", "train", "flow", "state"} <= set(said)
    assert {"cli", "artifacts", "watchdog"}.isdisjoint(said)
    assert {name for names in GROUPS.values() for name in names} <= set(said)
    rows = re.findall(r"^  (\w+) +(\S.*)$", listing(said | {"new": "Something new"}), flags=re.M)
    assert sorted(name for name, _ in rows) == sorted([*said, "new"])
    assert dict(rows)["train"] == "Train at one noise level"


def test_the_line_of_a_command_is_its_first_sentence():
    assert first_sentence("How tight are\nthey? See.") == "How tight are they?"
    assert first_sentence("List .state, and more.\n\nThe rest.") == "List .state, and more"
    assert first_sentence("Prepare the data: read, check.") == "Prepare the data"


@pytest.mark.medium
def test_a_command_is_that_of_the_project_in_which_one_stands(bin_folder, tmp_path):
    """Worktrees share one environment."""
    other = tmp_path / "other/pipelines"
    other.mkdir(parents=True)
    for name in ("__init__.py", "__main__.py"):
        (other / name).write_text((ROOT / "pipelines" / name).read_text())
    body = "    print(sys.argv[1:], os.getpid())\n    sys.exit(75)\n"
    (other / "check.py").write_text(f'"""Another check."""\nimport os, sys\n\nif __name__ == "__main__":\n{body}')
    with subprocess.Popen(
        [bin_folder / "smoothmix", "check", "--cost", "a b"], cwd=other.parent, stdout=subprocess.PIPE, text=True
    ) as done:
        output = done.communicate()[0]
    assert output == f"['--cost', 'a b'] {done.pid}\n"  # of one process: a signal reaches the command itself
    assert done.returncode == 75
    assert "check     Another check" in smoothmix(bin_folder, other.parent).stdout


@pytest.mark.medium
@pytest.mark.parametrize(
    ("cwd", "arguments", "said"),
    [
        (ROOT, ["trian"], "error: there is no command trian: did you mean train?\n"),
        (ROOT, ["xyz"], "error: there is no command xyz: smoothmix --help lists them\n"),
        (ROOT / "docs", ["train"], f"error: {ROOT}/docs is no project's folder: cd to the one that has pipelines/ and"),
    ],
)
def test_what_is_no_command_or_no_project_is_said_in_one_line(bin_folder, cwd, arguments, said):
    done = smoothmix(bin_folder, cwd, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1


@pytest.mark.medium
def test_a_shell_completes_the_commands(bin_folder):
    script = 'eval "$(smoothmix --print-completion bash)"; COMP_WORDS=(smoothmix re); COMP_CWORD=1; '
    script += '"$(complete -p smoothmix | sed -E "s/.*-F ([^ ]+).*/\\1/")"; echo "${COMPREPLY[@]}"'
    path = f"{bin_folder}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script], cwd=ROOT, env=os.environ | {"PATH": path}, capture_output=True, text=True
    )
    assert done.stdout == "register\n", done.stderr
