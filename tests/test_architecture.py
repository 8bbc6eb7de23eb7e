"""The shape of the project: who may import what, and that dvc.yaml, params.yaml and the code name the same things."""

import ast
import functools
import inspect
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from types import NoneType
from typing import get_args, get_type_hints

import networkx
import pytest
import yaml

from components.data.sources import SOURCES
from components.model.networks import NETWORKS
from components.params import METHOD_SECTIONS, METHODS, Params
from components.prepare import SOURCE_OPTIONS, Prepare
from components.train import NETWORKS as NETWORK_NAMES
from components.training.objectives import OBJECTIVES
from pipelines import artifacts

ROOT = Path(__file__).parents[1]
NOT_ON_COMPUTE_MACHINES = ["mlflow", "dvc", "prefect", "great_expectations", "pydantic", "sklearn", "pytest"]
SIGMA = 0.5
WRITES = {
    "prepare": {artifacts.TRAIN_SPLIT, artifacts.VAL_SPLIT, artifacts.TEST_SPLIT, artifacts.DESCRIPTION},
    "validate": {artifacts.VALIDATION, artifacts.DATA_PAGE},
    "brought": {artifacts.BROUGHT},
    "train": {artifacts.model(SIGMA), artifacts.history(SIGMA).parent},
    "certify": {artifacts.certificates(SIGMA).parent},
    "evaluate": {artifacts.METRICS, artifacts.CURVES, artifacts.P_LOWER_ECDF, artifacts.REPORT},
    "register": set(),
}
"""What each stage makes, where dvc.yaml must agree."""
NO_RESULT = {
    "components/__init__.py": "a docstring, as are those of its folders",
    "components/parsing.py": "turns texts into values, or refuses them",
    "components/data/sources/source.py": "the form in which a source hands over images, which only prepare reads",
    "components/tools/files.py": "where bytes go, not which",
    "components/tools/notify.py": "says what happened",
    "components/tools/progress.py": "says what happens",
    "components/tools/provenance.py": "circumstances, which no result depends on",
    "components/tools/remote.py": "where bytes go, not which",
    "components/tools/scratch.py": "where bytes wait, not which",
    "components/tools/roll_call.py": "how ranks find each other",
    "components/tools/world.py": "when ranks wait and end; it changes no number",
    "components/tools/wording.py": "how messages count",
    "components/registry/live.py": "shows a training while it runs",
    "pipelines/__init__.py": "a docstring",
    "pipelines/artifacts.py": "where files lie",
    "pipelines/cli.py": "options and exit codes",
    "pipelines/spectator.py": "shows a training while it runs",
    "pipelines/watchdog.py": "ends a stage that nobody waits for",
}
"""Modules that stages import and on which no result depends, with the reason: no dependency of a stage."""
STAGE_FILES = [f"pipelines/{stage}.py" for stage in WRITES]
GATE_FILES = ["pipelines/promote.py", "pipelines/champion_challenger.py", "pipelines/lookup.py"]


def python_files(folder):
    return [str(path.relative_to(ROOT)) for path in sorted((ROOT / folder).rglob("*.py"))]


@functools.cache
def imports(file):
    """Dotted names of all modules that a file imports, inside functions too; `from a import b` gives a and a.b."""
    names = set()
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} has a relative import"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def importers(library, folders=("components", "pipelines")):
    """The files that import a library."""
    files = [file for folder in folders for file in python_files(folder)]
    return {file for file in files if library in {name.split(".")[0] for name in imports(file)}}


@pytest.fixture(scope="module")
def stages():
    """The stages of dvc.yaml, those with one instance per noise level at SIGMA: params, deps and outs."""
    resolved = {}
    for name, stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].items():
        body = yaml.safe_load(yaml.safe_dump(stage.get("do", stage)).replace("${key}", str(SIGMA)))
        outs = [*body.get("outs", []), *body.get("metrics", []), *body.get("plots", [])]
        names = [next(iter(out)) if isinstance(out, dict) else out for out in outs]
        resolved[name] = {"cmd": body["cmd"], "params": set(body["params"]), "deps": body["deps"], "outs": names}
    return resolved


def code_behind(file, found=None):
    """The project's files that a file imports, directly or not, itself among them; not beyond NO_RESULT."""
    found = set() if found is None else found
    if file in found or is_under(Path(file), NO_RESULT):
        return found
    found.add(file)
    for name in imports(file):
        path = name.replace(".", "/")
        for candidate in (f"{path}.py", f"{path}/__init__.py"):
            if path.startswith(("components/", "pipelines/")) and (ROOT / candidate).exists():
                code_behind(candidate, found)
    return found


def is_under(path, names):
    return any(path.is_relative_to(name) for name in names)


def artifact_paths():
    """Every path of `artifacts` that a stage makes or reads, by name; those per noise level at SIGMA."""
    known = vars(artifacts).items()
    functions = {name: value for name, value in known if getattr(value, "__module__", "") == artifacts.__name__}
    per_sigma = {name: f(SIGMA) for name, f in functions.items() if list(inspect.signature(f).parameters) == ["sigma"]}
    constants = {name: value for name, value in known if isinstance(value, Path) and not value.is_absolute()}
    return {
        name: path
        for name, path in (constants | per_sigma).items()
        if path not in (artifacts.PARAMS, artifacts.OUTPUTS, artifacts.PROMOTION)
        and not path.is_relative_to(artifacts.ATTACKS)
    }


# --- imports -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", ["pipelines", "prefect", "dvc", "benchmarks", "tests"])
def test_components_know_nothing_of_what_uses_them(library):
    assert importers(library, folders=["components"]) == set()


@pytest.mark.parametrize("file", STAGE_FILES)
def test_stage_files_never_import_each_other_nor_the_flow(file):
    others = {name.removesuffix(".py").replace("/", ".") for name in [*STAGE_FILES, *GATE_FILES, "pipelines/flow.py"]}
    assert not imports(file) & others


@pytest.mark.parametrize("file", GATE_FILES)
def test_the_gate_runs_stages_as_commands_and_imports_none(file):
    others = {name.removesuffix(".py").replace("/", ".") for name in [*STAGE_FILES, "pipelines/flow.py"]}
    assert not imports(file) & others


def test_each_heavy_library_is_imported_where_it_is_used_alone():
    assert importers("prefect") == {
        f"pipelines/operation/{name}.py" for name in ("flow", "approval", "results", "served")
    }
    assert importers("great_expectations") == {"components/data/expectations.py"}
    assert importers("mlflow")
    assert all(file.startswith("components/registry/") for file in importers("mlflow"))
    assert importers("sklearn") == {"components/data/sources/published.py"}
    assert importers("pydantic") == set()
    assert importers("prometheus_client") == {"components/serving/metrics.py"}
    assert importers("fastapi") == {"components/serving/app.py", "pipelines/serve.py"}
    assert importers("uvicorn") == {"pipelines/serve.py"}


@pytest.mark.medium
def test_training_and_certification_import_on_a_machine_that_only_computes():
    program = f"""
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {NOT_ON_COMPUTE_MACHINES}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
import pipelines.prepare, pipelines.train, pipelines.certify, benchmarks.published.runs, benchmarks.gpu
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("depth", [2, None], ids=["packages", "modules"])
def test_no_imports_run_in_a_circle(depth):
    """The packages are the folders of components and pipelines, and the files beside these."""
    files = [file for folder in ("components", "pipelines") for file in python_files(folder)]
    names = {file.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for file in files}

    def package(name):
        parts = name.split(".")
        return ".".join(parts[:2] if depth and len(parts) > depth else parts)

    graph = networkx.DiGraph()
    for file in files:
        importer = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        imported = imports(file) & names
        imported -= {name for name in imported if any(other.startswith(f"{name}.") for other in imported)}
        graph.add_edges_from((package(importer), package(name)) for name in imported)
    graph.remove_edges_from(networkx.selfloop_edges(graph))
    assert networkx.is_directed_acyclic_graph(graph), networkx.find_cycle(graph)


# --- one name for one thing --------------------------------------------------------------------------------------


def test_stages_are_files_and_sections_of_the_parameters(stages):
    assert set(stages) == set(WRITES)
    sections = {field.name for field in fields(Params)}
    for name, stage in stages.items():
        assert (ROOT / "pipelines" / f"{name}.py").exists()
        assert f"python -m pipelines.{name}" in stage["cmd"]
        assert f"pipelines/{name}.py" in stage["deps"]
        assert name in stage["params"] or name == "brought", "which reads the section of train"
        assert stage["params"] <= sections


@pytest.mark.parametrize("name", WRITES)
def test_the_outputs_of_dvc_yaml_are_the_artifacts_of_the_code(stages, name):
    assert {Path(out) for out in stages[name]["outs"]} == WRITES[name]


def test_every_artifact_is_the_output_of_one_stage():
    for name, path in artifact_paths().items():
        owners = [stage for stage, outs in WRITES.items() if is_under(path, outs)]
        assert len(owners) == 1, f"{name} is written by {owners}"


@pytest.mark.parametrize("name", WRITES)
def test_a_stage_touches_only_what_dvc_yaml_lists_for_it(stages, name):
    tree = ast.parse((ROOT / "pipelines" / f"{name}.py").read_text())
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "artifacts"
    }
    listed = [*stages[name]["deps"], *stages[name]["outs"]]
    unlisted = {name for name, path in artifact_paths().items() if name in used and not is_under(path, listed)}
    assert not unlisted


def test_what_a_stage_needs_is_in_the_project_or_made_by_an_earlier_stage(stages):
    made = []
    for name, stage in stages.items():
        for needed in map(Path, stage["deps"]):
            in_project = needed.parts[0] in ("components", "pipelines") and (ROOT / needed).exists()
            made_before = is_under(needed, made) or any(out.is_relative_to(needed) for out in made)
            assert in_project or made_before, f"{name} needs {needed}"
        made += map(Path, stage["outs"])


@pytest.mark.parametrize("name", WRITES)
def test_dvc_yaml_lists_the_code_that_a_stage_s_result_depends_on(stages, name):
    """Else DVC, the key of a training or the identity of a table takes a result of other code for that of this code."""
    listed = [Path(dep) for dep in stages[name]["deps"] if dep.startswith(("components/", "pipelines/"))]
    docstrings = {file for file in python_files("components") if is_docstring(file)}
    behind = {Path(file) for file in code_behind(f"pipelines/{name}.py") - docstrings}
    unlisted = sorted(str(file) for file in behind if not is_under(file, listed))
    assert not unlisted, f"add to the deps of {name}, or to NO_RESULT with a reason: {unlisted}"
    idle = [str(dep) for dep in listed if not any(file.is_relative_to(dep) for file in behind)]
    assert not idle, f"{name} imports none of {idle}"


@pytest.mark.parametrize("name", ["train", "certify"])
def test_keys_and_identities_hash_what_dvc_yaml_lists(stages, name):
    code = {ROOT / dep for dep in stages[name]["deps"] if dep.startswith(("components/", "pipelines/"))}
    assert set(artifacts.code_of(name)) == code - set(artifacts.VALUES)


@functools.cache
def is_docstring(file):
    """Whether a file holds no code."""
    return len(ast.parse((ROOT / file).read_text()).body) <= 1


def choices(section, name):
    return set(get_args(get_type_hints(section)[name]))


def test_the_choices_of_the_parameters_are_the_names_in_the_code():
    assert METHODS.names == tuple(OBJECTIVES)
    assert set(OBJECTIVES) - set(METHOD_SECTIONS) == {"gaussian"}, "which has no hyper-parameters"
    assert set(METHOD_SECTIONS) < set(OBJECTIVES)
    for method, objective in OBJECTIVES.items():
        assert get_type_hints(objective)["own"] is METHOD_SECTIONS.get(method, NoneType)
    assert NETWORK_NAMES.names == tuple(NETWORKS)
    assert choices(Prepare, "source") == set(SOURCES) == set(SOURCE_OPTIONS)
