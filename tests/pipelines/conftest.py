"""A project whose pipeline has run, for the tests of what it gives and those of what interrupts it."""

from pathlib import Path

import pytest

from tests.support.workspace import copy_project, run, stages_run


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose pipeline has run once; tests leave it as they found it."""
    folder = copy_project(tmp_path_factory.mktemp("project"))
    ran = stages_run(run(folder, "dvc", "repro"))
    assert ran == [
        "prepare",
        "validate",
        "brought",
        "train@0.5",
        "train@1.0",
        "certify@0.5",
        "certify@1.0",
        "evaluate",
        "register",
    ]
    return folder
