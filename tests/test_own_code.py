"""Code by a dotted name: what belongs to it, and that it runs from its stored text alone."""

import subprocess
import sys
from pathlib import Path

import pytest

from components import own_code
from components.own_code import OwnCode
from tests.support.own_code import project, write

ROOT = Path(__file__).parents[1]
__all__ = ["project"]


def test_it_is_the_module_and_all_own_ones_that_it_imports_in_whatever_way(project):
    write(
        project,
        models__net="import models.a\nfrom models import b\nfrom . import c\nfrom .sub.d import x\nimport plain as p",
        models__a="def late():\n    from models.e import y\n    return y",
        models__b="",
        models__c="import models.net",
        models__sub__d="x = 1",
        models__e="y = 2",
        models__unused="",
        plain="import json, torch.nn",
    )
    (project / "models/__init__.py").write_text("import numpy.linalg")
    code = own_code.find("models.net:build")
    assert sorted(code.sources) == [
        *("models/__init__.py", "models/a.py", "models/b.py", "models/c.py", "models/e.py"),
        *("models/net.py", "models/sub/d.py", "plain.py"),
    ]
    assert set(code.packages) == {"numpy", "torch"}


def test_its_facts_change_with_each_source_and_with_nothing_else(project):
    write(project, net="import helper", helper="x = 1", other="x = 1")
    first = own_code.find("net:a").facts
    write(project, other="x = 2")
    own_code._find.cache_clear()
    assert own_code.find("net:b").facts == first
    write(project, helper="x = 2")
    own_code._find.cache_clear()
    assert own_code.find("net:b").facts != first


def test_one_process_sees_one_text_even_if_the_file_changes_meanwhile(project):
    write(project, net="x = 1")
    code = own_code.find("net:x")
    write(project, net="x = 2")
    assert own_code.find("net:x") == code
    assert own_code.load(code) == 1


@pytest.mark.medium
def test_finding_runs_nothing_and_imports_no_torch(project):
    write(project, net="raise SystemExit('it ran')\nimport torch", pkg__net="")
    (project / "pkg/__init__.py").write_text("raise SystemExit('it ran')")
    program = "import sys; from components import own_code; own_code.find('net:x'); own_code.find('pkg.net:x')"
    done = subprocess.run([sys.executable, "-c", f"{program}; assert 'torch' not in sys.modules"], cwd=project,
                          env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.medium
def test_an_installed_one_is_its_package_and_version(project):
    code = own_code.find("yaml:safe_load")
    assert (code.sources, list(code.packages)) == ({}, ["PyYAML"])
    assert own_code.load(code)("1") == 1


def test_ours_is_covered_by_other_hashes(project):
    assert own_code.find("components.model.networks:lenet").facts == {"files": {}, "packages": {}}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere:build", "there is no module nowhere: install it, or put nowhere.py into "),
        ("net.py:build", "there is no module net.py: write net"),
        ("net.deep:build", "there is no module net.deep"),
        ("broken:build", r"SyntaxError: .* \(broken.py:1\)"),
    ],
)
def test_what_cannot_be_found_is_refused(project, name, words):
    write(project, net="", broken="def build(:")
    with pytest.raises(ValueError, match=words):
        own_code.find(name)


def test_two_versions_of_one_module_run_side_by_side_from_their_text_alone(project):
    sources = {
        "pkg/net.py": b"import pkg.k\nfrom pkg import k\ndef f():\n    from pkg.k import K\n    return K, pkg.k.K, k.K"
    }
    loaded = [own_code.load(OwnCode("pkg.net:f", sources | {"pkg/k.py": b"K = %d" % k}, {})) for k in (1, 2)]
    write(project, pkg__net="1 / 0", pkg__k="1 / 0")
    assert [f() for f in loaded] == [(1, 1, 1), (2, 2, 2)]
    assert "pkg" not in sys.modules
    assert not list(project.rglob("__pycache__"))


def test_a_missing_attribute_is_refused_with_those_that_are_there(project):
    write(project, net="def build():\n    pass")
    with pytest.raises(ValueError, match="net has no biuld, only build"):
        own_code.load(own_code.find("net:biuld"))


def test_an_error_in_a_user_s_code_becomes_one_line_with_its_place(project):
    write(project, net="import helper", helper="\n\n{}['key']")
    code = own_code.find("net:x")
    expected = pytest.raises(ValueError, match=r"^train\.network: KeyError: 'key' \(helper\.py:3\)$")
    with expected, own_code.named_errors("train.network", code):
        own_code.load(code)
