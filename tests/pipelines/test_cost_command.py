"""`python -m pipelines.check --cost`."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from components import params as parameters
from pipelines.check import image_shape
from pipelines.cost import duration, what_there_is
from pipelines.prepare import prepare_and_save
from tests.support.drawn_pictures import draw_folder
from tests.support.workspace import environment

ROOT = Path(__file__).parents[2]


def write_recipe(folder, recipe, changes=None):
    text = (ROOT / f"recipes/{recipe}.yaml").read_text(encoding="utf-8")
    for pattern, replacement in (changes or {}).items():
        text, found = re.subn(pattern, replacement, text)
        assert found, pattern
    (folder / "params.yaml").write_text(text, encoding="utf-8")


def check(folder, *options):
    command = [sys.executable, "-m", "pipelines.check", *options]
    env = environment() | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)


def minutes(line):
    return [float(value) for value in re.findall(r"([\d.]+) min", line)]


@pytest.mark.medium
def test_times_memory_and_what_makes_it_shorter(tmp_path):
    write_recipe(tmp_path, "digits")
    done = check(tmp_path, "--cost")
    assert done.returncode == 0, done.stderr
    assert "measuring small_convnet at sigma 0.5\n" in done.stderr
    lines = {line.strip().split("  ")[0]: line for line in done.stdout.splitlines()}
    for name in ("0.25", "0.5", "1.0", "all"):
        train, certify, both = minutes(lines[name])
        assert train > 0
        assert certify > 0
        assert both == pytest.approx(train + certify, abs=0.11)
    train, certify, _ = minutes(lines["all"])
    fewer, preset = (minutes(lines[name]) for name in ("certify.n: 1000", "certify.mode: sequential"))
    assert fewer[0] == preset[0] == train, "the training stays as it is"
    assert fewer[1] < preset[1] < certify
    assert re.search(r"peak memory of a stage: [\d.]+ GiB of [\d.]+ GiB\n", done.stdout)
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"], "nothing is written"


@pytest.mark.medium
def test_without_the_option_nothing_is_measured(tmp_path):
    write_recipe(tmp_path, "digits")
    done = check(tmp_path)
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""
    assert "--cost" in check(tmp_path, "--help").stdout


def test_own_pictures_are_counted_before_they_are_prepared_and_known_afterwards(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw_folder(tmp_path / "pictures", each=5)
    own = {"root: data/raw/images": f"root: {tmp_path}/pictures"}

    def known():
        params = parameters.load()
        counts, _, known_from = what_there_is(params, image_shape(params.prepare))
        assert (counts.train, counts.test, counts.classes) == (24, 6, 6)
        return known_from

    write_recipe(tmp_path, "image_folder", own)
    assert known() == "not prepared yet"
    prepare_and_save(parameters.load())
    assert known() == "prepared"
    write_recipe(tmp_path, "image_folder", own | {"image_size: 32": "image_size: 16"})
    assert known() == "not prepared yet", "prepared with other parameters"
    write_recipe(tmp_path, "image_folder", own)
    lock = "stages: {prepare: {params: {params.yaml: {prepare: {source: image_folder, root: elsewhere}}}}}"
    (tmp_path / "dvc.lock").write_text(lock, encoding="utf-8")
    assert known() == "not prepared yet", "prepared from another folder"


@pytest.mark.medium
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
    if recipe:
        write_recipe(tmp_path, recipe, changes)
    done = check(tmp_path, "--cost")
    assert done.returncode in (1, 2)
    assert re.search(words, done.stderr)
    assert done.stderr.count("\n") == 1


def test_durations_are_minutes_hours_or_days():
    assert [duration(seconds) for seconds in (6, 90, 7199, 7200, 200_000)] == [
        "0.1 min",
        "1.5 min",
        "120.0 min",
        "2.0 h",
        "2.3 days",
    ]
