"""How params.yaml is read: as DVC reads it, and what cannot be used is refused in one line by name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from components import params
from components.params import level_key, parse
from components.parsing import ParamsError, yaml_value
from components.prepare import SOURCE_OPTIONS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("path", [ROOT / "params.yaml", *(ROOT / "recipes").glob("*.yaml")], ids=lambda path: path.name)
def test_the_project_s_own_files_are_accepted(path):
    loaded = params.load(path)
    assert loaded == parse(yaml.safe_load(path.read_text()))
    assert [level_key(sigma) for sigma in loaded.sigmas] == list(loaded.noise_levels)


def test_the_digits_recipe_is_the_one_selected():
    assert (ROOT / "recipes/digits.yaml").read_bytes() == (ROOT / "params.yaml").read_bytes()


def test_there_is_a_recipe_for_every_source():
    loaded = [params.load(path) for path in (ROOT / "recipes").glob("*.yaml")]
    in_other_forms = {"table", "arrays", "huggingface"}  # docs/own-images.md says which lines of image_folder differ
    assert {recipe.prepare.source for recipe in loaded} == set(SOURCE_OPTIONS) - in_other_forms


UNUSABLE = {
    "no file": (None, "there is no such file; run from the project's folder"),
    "empty": (b"", "is empty: copy one of recipes/ to it"),
    "comments alone": (b"# seed: 0\n", "is empty: copy one of recipes/ to it"),
    "broken": (b"seed: [1", "line 1, column 9 is not valid YAML: expected ',' or ']'"),
    "a list": (b"- a\n", "the file is ['a']: must be a mapping"),
    "tab": (b"train:\n\tepochs: 3\n", "line 2, column 1 is not valid YAML: found character '\\t' that cannot"),
    "latin-1": ("# σ\nname: größe\n".encode("iso8859_15", "replace"), "is not UTF-8 (byte 13): save it as UTF-8"),
    "UTF-16": ("seed: 0\n".encode("utf-16"), "is not UTF-8 (byte 1): save it as UTF-8"),
    "UTF-16 without its mark": ("seed: 0\n".encode("utf-16-le"), "is not valid YAML: unacceptable character #x0000"),
    "a key twice": (b"train:\n  epochs: 3\n  epochs: 4\n", "line 3, column 3 is not valid YAML: the key epochs occurs"),
    "a section twice": (b"seed: 0\n'seed': 1\n", "line 2, column 1 is not valid YAML: the key seed occurs twice"),
    "two documents": (b"seed: 0\n---\nseed: 1\n", "is not valid YAML: but found another document"),
    "a list as key": (b"? [a]\n: 1\n", "is not valid YAML: found unhashable key"),
    "code": (b"seed: !!python/object:os.system {}\n", "is not valid YAML: could not determine a constructor"),
    "deep": (b"[" * 5000, "is not valid YAML: maximum recursion depth exceeded"),
    "digits": (b"seed: " + b"9" * 5000, "is not valid YAML: Exceeds the limit"),
}


@pytest.mark.parametrize(("content", "message"), UNUSABLE.values(), ids=UNUSABLE)
def test_a_file_that_cannot_be_used_is_refused_in_one_line_by_name(tmp_path, content, message):
    path = tmp_path / "params.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ParamsError) as refusal:
        params.load(path)
    assert str(refusal.value).startswith(str(path))
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_folder_in_the_file_s_place_is_refused_by_name(tmp_path):
    with pytest.raises(ParamsError, match="cannot be read: Is a directory"):
        params.load(tmp_path)


@pytest.mark.parametrize("spelling", ["utf-8-sig", "CRLF", "CR"])
def test_other_editors_files_are_read(tmp_path, spelling):
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    ends = {"CRLF": "\r\n", "CR": "\r"}.get(spelling, "\n")
    encoding = spelling if spelling == "utf-8-sig" else "utf-8"
    path = tmp_path / "params.yaml"
    path.write_bytes(text.replace("\n", ends).encode(encoding))
    assert params.load(path) == params.load(ROOT / "params.yaml")


def test_the_locale_says_nothing_about_the_file(tmp_path):
    (tmp_path / "params.yaml").write_text(
        "# σ\n" + (ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8"
    )
    program = "from components import params; print(params.load().train.epochs)"
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "30\n", "")


SCALARS = {
    **{text: 1e-05 for text in ("1e-05", "1E-5", "1.0e-5", "0.00001", ".00001", "+1e-5", "0_0.00001")},
    **{text: 1000.0 for text in ("1e3", "1E+3", "1000.", "1_000.0")},
    "-1e-3": -0.001,
    ".inf": float("inf"),
    "-.INF": float("-inf"),
    **{"100000": 100_000, "100_000": 100_000, "-3": -3, "0": 0, "0x10": 16, "0o10": 8},
    **{text: text for text in ("010", "1:30", "e5", "1e", "0.5.1", "2024-01-01", "yes", "No", "on", "OFF", "y", "=")},
    **{"true": True, "False": False, "~": None, "null": None, "": None, '"1e-5"': "1e-5"},
}


@pytest.mark.parametrize(("text", "value"), SCALARS.items())
def test_numbers_and_words_are_read_as_dvc_reads_them(text, value):
    read = yaml_value(f"[{text}]" if text else "[~]", "x")[0]
    assert (read, type(read)) == (value, type(value))


def test_a_small_number_that_dvc_has_written_is_a_number(tmp_path):
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    path = tmp_path / "params.yaml"
    path.write_text(text.replace("learning_rate: 0.05", "learning_rate: 5e-05"), encoding="utf-8")
    assert params.load(path).train.learning_rate == 0.00005


def test_anchors_and_merged_mappings_may_be_used():
    text = "a: &a {x: 1, y: 2}\nb: &b\n  <<: *a\n  y: 3\nc:\n  <<: *b\n  x: 4\n"
    assert yaml_value(text, "x") == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}, "c": {"x": 4, "y": 3}}
