"""Identities by content."""

import subprocess
from pathlib import Path

import pytest

from components.tools.hashing import SOURCES, hash_code
from pipelines import artifacts

ROOT = Path(__file__).parents[2]


@pytest.fixture
def code(tmp_path):
    folder = tmp_path / "noise"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.py").write_text("a")
    (folder / "deep/b.cpp").write_text("b")
    return folder


@pytest.mark.parametrize("name", ["a.py", "deep/b.cpp", "new.cpp", "deep/new.py"])
def test_every_file_of_code_counts(code, name):
    before = hash_code([code])
    (code / name).write_text("other")
    assert hash_code([code]) != before


@pytest.mark.parametrize("name", ["__pycache__/a.cpython-311.pyc", "a.py~", ".a.py.swp"])
def test_what_lies_beside_the_code_does_not(code, name):
    before = hash_code([code])
    (code / name).parent.mkdir(exist_ok=True)
    (code / name).write_text("other")
    assert hash_code([code]) == before


def test_the_folders_that_results_depend_on_hold_nothing_that_is_overlooked():
    folders = [path for path in artifacts.code_of("certify") + artifacts.code_of("train") if path.is_dir()]
    tracked = subprocess.run(["git", "ls-files", *folders], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "components/certification/noise/native.cpp" in tracked.stdout.splitlines()
    assert {Path(name).suffix for name in tracked.stdout.splitlines()} <= SOURCES
