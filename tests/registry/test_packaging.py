"""What a registered model asks for is what its code imports."""

import ast
import functools
import sys
from importlib.metadata import packages_distributions

import pytest

from components.model.networks import NETWORKS
from components.registry.packaging import MODEL_CODE, requirements
from tests.support.workspace import ROOT

COMES_WITH = {"triton": "torch"}
"""Packages that another one of the list brings along where there is a use for them."""


def modules_in(names):
    """The files of our own modules among dotted names, and of the packages that they lie in."""
    for name in names:
        parts = name.split(".")
        for count in range(1, len(parts) + 1):
            base = ROOT.joinpath(*parts[:count])
            yield from (path for path in (base.with_suffix(".py"), base / "__init__.py") if path.exists())


def imports_of(path):
    """Dotted names of what a file imports, inside functions too; `from a import b` gives a and a.b."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@functools.cache
def imported_packages():
    """Packages that the model's code imports, directly or through others of our modules."""
    seen, waiting, names = set(), [MODEL_CODE], set()
    while waiting:
        path = waiting.pop()
        if path not in seen:
            seen.add(path)
            found = list(imports_of(path))
            names |= {name.split(".")[0] for name in found}
            waiting += modules_in(found)
    known = packages_distributions()
    others = names - set(sys.stdlib_module_names) - {"components"}
    # where several packages hold a module, as mlflow and mlflow-tracing do, the one of its name is meant
    packages = {name if name in known[name] else known[name][0] for name in others if name in known}
    return {COMES_WITH.get(package, package) for package in packages}


@pytest.mark.medium
@pytest.mark.parametrize("network", NETWORKS)
def test_a_model_asks_for_what_its_code_imports(network):
    of_resnet50 = {"torchvision"}
    expected = {name.lower() for name in imported_packages()} - of_resnet50
    expected |= of_resnet50 if network == "resnet50" else set()
    assert {name.lower() for name in requirements(network)} == expected
