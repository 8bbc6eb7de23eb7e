"""Code that a user brings, by a dotted name such as `my_package.my_module:build`.

Its source is found without running it, hashed, and stored beside the weights. It always runs from that text, as modules
of a private package: so what is loaded later is what was trained, whatever then lies in the project, and two versions
of one module can be loaded side by side. Imports no torch.
"""

import ast
import hashlib
import importlib
import importlib.abc
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from types import ModuleType
from typing import Any

from components.tools.hashing import hash_value

OURS = {"components", "pipelines"}
"""This project's own packages: other hashes cover them, and whoever loads a model has them."""
PRIVATE = "_own_code_"
"""Prefix of the private packages."""
ERROR_LENGTH = 300


@dataclass(frozen=True)
class OwnCode:
    """A dotted name, and all that its meaning depends on."""

    name: str
    sources: dict[str, bytes]
    """The modules of the project that it needs, by path (`my_package/my_module.py`): its own, and those that it
    imports, directly or not. Empty where it is installed."""
    packages: dict[str, str]
    """The version of each installed package that it needs."""

    @property
    def facts(self) -> dict[str, dict[str, str]]:
        """The hash of each source, and the versions: for identities and cards."""
        files = {path: hashlib.sha256(source).hexdigest() for path, source in sorted(self.sources.items())}
        return {"files": files, "packages": dict(sorted(self.packages.items()))}


# --- finding, without running anything ---------------------------------------------------------------------------


def find(name: str) -> OwnCode:
    """The code behind a dotted name, as this process has first seen it.

    Raises:
        ValueError: there is no such module in the project or installed, or a source cannot be read.
    """
    return _find(name, Path.cwd())


@cache
def _find(name: str, project: Path) -> OwnCode:
    importlib.invalidate_caches()
    module = name.partition(":")[0]
    sources: dict[str, bytes] = {}
    packages: dict[str, str] = {}
    waiting, seen = [module], set()
    while waiting:
        wanted = waiting.pop()
        top = wanted.split(".")[0]
        if wanted in seen or top in packages or top in OURS:
            continue
        seen.add(wanted)
        spec = _locate(wanted, project)
        if spec is None and wanted == module:
            raise ValueError(_missing(wanted, project))
        if spec is None or spec.origin is None:  # a name in a module, or a folder without __init__.py
            continue
        if not _is_in(project, spec.origin):
            packages |= {} if top in sys.stdlib_module_names else _installed(wanted, spec.origin)
            continue
        path = Path(spec.origin).relative_to(project)
        if path.suffix != ".py":
            raise ValueError(f"{path} is compiled: install it as a package, or bring its source")
        sources[path.as_posix()] = source = Path(spec.origin).read_bytes()
        waiting += _imports(source, path.as_posix(), wanted, is_package=path.name == "__init__.py")
        waiting += _parents(wanted)
    return OwnCode(name, sources, packages)


def _missing(module: str, project: Path) -> str:
    py = module.removesuffix(".py")
    hint = f"write {py}" if py != module else f"install it, or put {module.replace('.', '/')}.py into {project}"
    return f"there is no module {module}: {hint}"


def _locate(module: str, project: Path) -> ModuleSpec | None:
    """Where a module lies; unlike `importlib.util.find_spec` it runs no `__init__.py` on the way."""
    path, spec = [str(project), *sys.path], None
    for part in module.split("."):
        found = PathFinder.find_spec(part, path)  # a file is found by its last name
        if found is None and spec is None:  # editable installs have finders of their own
            found = next(filter(None, (finder.find_spec(part, None) for finder in sys.meta_path)), None)
        if found is None:
            return None
        spec, path = found, list(found.submodule_search_locations or [])
    return spec


def _is_in(project: Path, origin: str) -> bool:
    path = Path(origin)
    return path.is_relative_to(project) and not {"site-packages", "dist-packages"} & set(path.parts)


def _installed(module: str, origin: str) -> dict[str, str]:
    """The package that an installed module belongs to, and its version."""
    top = module.split(".")[0]
    try:
        return {top: version(top)}
    except PackageNotFoundError:
        names = packages_distributions().get(top)  # reads every installed package, so only where it must
    if not names:
        raise ValueError(f"{module} lies in {origin}, neither in the project nor installed: move or install it")
    return {name: version(name) for name in names}


def _parents(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def _parsed(source: bytes, path: str) -> ast.Module:
    try:
        return ast.parse(source, path)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        raise ValueError(f"{type(error).__name__}: {getattr(error, 'msg', error)} ({path}:{line})") from None


def _imports(source: bytes, path: str, module: str, *, is_package: bool) -> list[str]:
    """Dotted names of what a module imports, inside functions too; `from a import b` gives a and a.b."""
    package = module if is_package else module.rpartition(".")[0]
    names = []
    for node in ast.walk(_parsed(source, path)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            try:
                base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            except ImportError:  # beyond the top: running it says so
                continue
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return [parent for name in names for parent in [*_parents(name), name]]


# --- running -----------------------------------------------------------------------------------------------------


def load(code: OwnCode) -> Any:
    """The object that the dotted name stands for; the same code is run once per process.

    Raises:
        ValueError: its module has no such attribute.
        Exception: whatever the code raises while it is imported; see `named_errors`.
    """
    module, _, attribute = code.name.partition(":")
    prefix = ""
    if code.sources:
        package = PRIVATE + hash_value(code.facts)[:16]
        _SOURCES[package] = code.sources
        if _FINDER not in sys.meta_path:
            sys.meta_path.append(_FINDER)
        prefix = f"{package}."
    imported = importlib.import_module(prefix + module)
    if not hasattr(imported, attribute):
        own = [name for name, value in vars(imported).items() if getattr(value, "__module__", "") == imported.__name__]
        raise ValueError(f"{module} has no {attribute}" + (f", only {', '.join(own[:10])}" if own else ""))
    return getattr(imported, attribute)


@contextmanager
def named_errors(what: str, code: OwnCode | None = None) -> Iterator[None]:
    """Turn whatever a user's code raises within the block into a ValueError of one line.

    Args:
        what: the beginning of the line.
        code: names file and line, where the error comes from one of its sources.
    """
    try:
        yield
    except Exception as error:
        frames = [
            (Path(frame.filename).as_posix(), frame.lineno) for frame in traceback.extract_tb(error.__traceback__)
        ]
        places = [f" ({file}:{line})" for file, line in frames if code and file in code.sources]
        message = " ".join(str(error).split())[:ERROR_LENGTH]
        said = message if type(error) is ValueError and not places else f"{type(error).__name__}: {message}"
        raise ValueError(f"{what}: {said}{places[-1] if places else ''}") from None


_SOURCES: dict[str, dict[str, bytes]] = {}
"""The sources of each private package."""


class _PrivateModules(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Finds and runs the modules of the private packages. It writes no byte code beside the sources."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        package, _, module = fullname.partition(".")
        if package not in _SOURCES:
            return None
        sources, file = _SOURCES[package], module.replace(".", "/")
        for origin, is_package in ((f"{file}/__init__.py", True), (f"{file}.py", False)):
            if origin in sources:
                spec = ModuleSpec(fullname, self, origin=origin, is_package=is_package)
                spec.has_location = True
                return spec
        if not module or any(name.startswith(f"{file}/") for name in sources):  # a folder without __init__.py
            return ModuleSpec(fullname, None, is_package=True)
        return None

    def exec_module(self, module: ModuleType) -> None:
        spec = module.__spec__
        assert spec is not None
        assert spec.origin is not None
        package = spec.name.partition(".")[0]
        tree = _Renamed(package).visit(_parsed(_SOURCES[package][spec.origin], spec.origin))
        exec(compile(ast.fix_missing_locations(tree), spec.origin, "exec"), module.__dict__)

    def get_source(self, fullname: str) -> str | None:
        """For tracebacks."""
        spec = self.find_spec(fullname)
        return _SOURCES[fullname.partition(".")[0]][spec.origin].decode() if spec and spec.origin else None


_FINDER = _PrivateModules()


class _Renamed(ast.NodeTransformer):
    """Lets absolute imports of own modules import them from the private package; relative ones do so anyway."""

    def __init__(self, package: str) -> None:
        self.package = package

    def _is_own(self, module: str) -> bool:
        return _FINDER.find_spec(f"{self.package}.{module}") is not None

    def visit_Import(self, node: ast.Import) -> list[ast.stmt]:
        """`import a.b` binds a: it becomes an import of the private a.b, and of a from the private package."""
        statements: list[ast.stmt] = []
        for alias in node.names:
            if not self._is_own(alias.name):
                statements.append(ast.Import([alias]))
                continue
            private, top = f"{self.package}.{alias.name}", alias.name.split(".")[0]
            statements.append(ast.Import([ast.alias(private, alias.asname or "_own_import")]))
            if alias.asname is None:
                statements.append(ast.ImportFrom(self.package, [ast.alias(top)], 0))
        return [ast.copy_location(statement, node) for statement in statements]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom:
        if node.level == 0 and node.module and self._is_own(node.module):
            node.module = f"{self.package}.{node.module}"
        return node
