"""Versions of a user's own network: what makes one, where weights and table are the same."""

import json
import textwrap

import pytest
import torch

from components.model import networks, weights
from components.registry.model_files import fetch_weights
from components.registry.packaging import log_model
from components.registry.tables import content_hash, registered_table
from tests.registry.test_own_models import FACTS, SHAPE
from tests.support.own_code import LINEAR, write

pytestmark = pytest.mark.medium


@pytest.fixture
def versions(tmp_path, local, monkeypatch):
    """Registers models of equal weights and tables by their code, as the register stage does; ends in the versions."""

    def register(*codes):
        found = []
        for i, code in enumerate(codes):
            write(tmp_path / f"{i}", net=code)
            monkeypatch.chdir(tmp_path / f"{i}")  # each code is found once in a folder
            torch.manual_seed(0)
            card = weights.save(networks.build("net:build", SHAPE, 3), tmp_path / f"{i}/0.5", **FACTS)
            (files := tmp_path / f"{i}/certificates").mkdir()
            (files / "table.tsv").write_text("idx\tlabel\tpredict\tradius\tcorrect\n0\t0\t0\t0.5\t1\n")
            (files / "identity.json").write_text(json.dumps(card.content))
            content = content_hash(card.content, files / "table.tsv")
            run = local.find_complete_run(code, content) or local.start_training_run(
                code, {"method": "gaussian", "sigma": 0.5}
            )
            parts = {
                "metrics": {},
                "curve": [],
                "tags": {},
                "dataset": ("d", "0" * 64, ""),
                "files": [(files, files.name)],
            }
            local.complete_run(run, content, **parts)
            version = local.find_version(f"own-{local.experiment_id}", content)
            if version is None:
                logged = log_model(run, tmp_path / f"{i}/0.5", n=500, failure_prob=0.01)
                version = local.register(f"own-{local.experiment_id}", logged, content, card.content)
            found.append(version)
        return found

    return register


def test_other_code_with_the_same_weights_and_table_is_another_version(versions, tmp_path):
    other = LINEAR.replace("nn.Flatten()", "nn.Flatten(1)")
    first, again, second = versions(LINEAR, LINEAR, other)
    assert [version.version for version in (first, again, second)] == [1, 1, 2]
    assert first.tags["weights_sha256"] == second.tags["weights_sha256"]
    for version, code in ((first, LINEAR), (second, other)):
        assert registered_table(version).identity["network_code_sha256"] == version.tags["network_code_sha256"]
        fetch_weights(version, tmp_path / "fetched")
        assert (tmp_path / "fetched/code/net.py").read_text() == textwrap.dedent(code)


def test_without_own_code_a_version_is_found_by_the_hash_of_before(tmp_path):
    (tmp_path / "table.tsv").write_text("a table")
    assert content_hash({"weights_sha256": "0" * 64, "n": 5}, tmp_path / "table.tsv") == (
        "efd3d08666675596fd575c2e31e92929d927cf31d98a31208d48c00c4f97bfa9"
    )
