"""The workspaces that benchmarks run stages in."""

from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from benchmarks.workspace import DATA, read_params, run_in, share_data, write_params
from components.params import parse
from pipelines.cli import DONE

pytestmark = pytest.mark.medium

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def raw():
    return yaml.safe_load((ROOT / "recipes/digits.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, raw):
    """A folder beside which workspaces share its data."""
    out = tmp_path_factory.mktemp("out")
    write_params(out / "first", raw)
    share_data(out / "first", out / "prepared", raw)
    return out


def test_data_is_prepared_once_and_seen_by_all(prepared, raw):
    before = (prepared / "prepared" / DATA / "prepared/description.json").stat().st_mtime_ns
    share_data(prepared / "second", prepared / "prepared", raw)
    for name in ("first", "second"):
        assert (prepared / name / DATA / "prepared/description.json").stat().st_mtime_ns == before
    assert read_params(prepared / "first") == asdict(parse(raw))


def test_data_of_other_parameters_is_refused(prepared, raw):
    with pytest.raises(ValueError, match="prepared by other parameters"):
        share_data(prepared / "third", prepared / "prepared", raw | {"seed": 5})


def test_a_stage_keeps_its_state_in_the_workspace_and_asks_no_tracking_server(prepared, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:1")
    assert run_in(prepared / "first", "validate") == DONE
    assert (prepared / "first" / DATA / "validation.json").exists()
    with pytest.raises(ValueError, match="prepare exited with 2"):
        run_in(prepared / "first", "prepare", "--sigma", "0.7")
