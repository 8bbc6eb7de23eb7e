"""docs/operations.md names the tests that run its commands: they exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_tests_that_the_operations_page_names_exist():
    page = (ROOT / "docs/operations.md").read_text()
    named = set(re.findall(r"\(([a-z]+(?:_[a-z]+)+)\)", page) + re.findall(r"\| ([a-z]+(?:_[a-z]+)+) \|$", page, re.M))
    files = set(re.findall(r"tests/\w+/test_\w+\.py", page))
    tests = " ".join(path.read_text() for path in (ROOT / "tests/operation").glob("test_*.py"))
    assert "a_worker_runs" in named
    assert [name for name in sorted(named) if not re.search(rf"def test_\w*{name}", tests)] == []
    assert [file for file in sorted(files) if not (ROOT / file).exists()] == []
