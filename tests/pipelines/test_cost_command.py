"""`python -m pipelines.check --cost`, on recipes of every method, with images in memory and in files."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.drawn_pictures import draw_folder

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.command


def check(folder, recipe="digits", changes=None, module="check", options=("--cost",)):
    if recipe:
        text = (ROOT / f"recipes/{recipe}.yaml").read_text(encoding="utf-8")
        for pattern, replacement in (changes or {}).items():
            text, found = re.subn(pattern, replacement, text)
            assert found, pattern
        (folder / "params.yaml").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", f"pipelines.{module}", *options]
    return subprocess.run(command, cwd=folder, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)


def minutes(text):
    """The first three durations of a line."""
    return [float(value) for value in re.findall(r"([\d.]+) min", text)[:3]]


def test_times_memory_and_what_makes_it_shorter(tmp_path):
    done = check(tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [f"measuring small_convnet at sigma {sigma}" for sigma in (0.25, 0.5, 1.0)]
    lines = {line.split("  ")[0].strip(): line for line in done.stdout.splitlines()}
    for name in ("0.25", "0.5", "1.0", "all"):
        train, certify, both = minutes(next(line for line in done.stdout.splitlines() if line.strip().startswith(name)))
        assert train > 0
        assert certify > 0
        assert both == pytest.approx(train + certify, abs=0.11)
    (total,) = minutes(re.search(r"total: .*", done.stdout)[0])
    fewer, preset = (minutes(lines[name]) for name in ("certify.n: 1000", "certify.mode: sequential"))
    assert fewer[0] == preset[0], "training stays as it is"
    assert fewer[1] < preset[1] < total
    assert re.search(r"peak memory of a stage: [\d.]+ GiB of [\d.]+ GiB\n", done.stdout)
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"], "nothing is written"


def test_without_the_option_nothing_is_measured(tmp_path):
    done = check(tmp_path, options=())
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


def test_own_pictures_are_counted_before_they_are_prepared_and_known_afterwards(tmp_path):
    draw_folder(tmp_path / "pictures", each=5)
    changes = {"root: data/raw/images": f"root: {tmp_path}/pictures", "  n: 10000": "  n: 1000"}
    done = check(tmp_path, "image_folder", changes)
    assert done.returncode == 0, done.stderr
    assert "24 training images and 6 test images (not prepared yet)" in done.stdout
    assert check(tmp_path, None, module="prepare", options=()).returncode == 0
    assert "24 training images and 6 test images (prepared)" in check(tmp_path, None).stdout
    done = check(tmp_path, "image_folder", changes | {"image_size: 32": "image_size: 16"})
    assert "(not prepared yet)" in done.stdout, "prepared with other parameters"


@pytest.mark.parametrize("method", ["gaussian", "stability", "smoothadv", "macer", "consistency"])
def test_every_method_is_measured(tmp_path, method):
    changes = {"method: smoothmix": f"method: {method}", r'\n  "0.25":(\n    .*)*': "", r'\n  "0.5":(\n    .*)*': ""}
    done = check(tmp_path, changes=changes)
    assert done.returncode == 0, done.stderr
    assert "total: " in done.stdout


@pytest.mark.parametrize(
    ("recipe", "changes", "words"),
    [
        ("image_folder", {}, "error: prepare.root is .*data/raw/images: no such folder"),
        ("image_folder", {"image_size: 32": "image_size: 33"}, "error: train.network is 'small_convnet': does not fit"),
        ("digits", {"test_share: 0.25": "test_share: 0.0001"}, "error: prepare.source is digits: gives no test image"),
        (None, None, "error: params.yaml"),
    ],
)
def test_bad_input_is_one_line(tmp_path, recipe, changes, words):
    done = check(tmp_path, recipe, changes)
    assert done.returncode in (1, 2)
    assert re.search(words, done.stderr)
    assert done.stderr.count("\n") == 1
