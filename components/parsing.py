"""Converts YAML files and plain values to dataclasses, with errors that name key, value and remedy.

No validation library: machines that only train or certify have none installed.
"""

import math
import re
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml


class ParamsError(ValueError):
    """A parameter is unknown, missing, of the wrong type or out of range; the message names key, value and remedy."""


@dataclass(frozen=True)
class Range:
    """Bounds on a number: `above` and `below` exclude their end, `least` and `most` include it."""

    above: float | None = None
    least: float | None = None
    below: float | None = None
    most: float | None = None

    def __contains__(self, value: float) -> bool:
        return not (
            (self.above is not None and not value > self.above)
            or (self.least is not None and not value >= self.least)
            or (self.below is not None and not value < self.below)
            or (self.most is not None and not value <= self.most)
        )

    def __str__(self) -> str:
        ends = {">": self.above, ">=": self.least, "<": self.below, "<=": self.most}
        return " and ".join(f"{sign} {end:g}" for sign, end in ends.items() if end is not None)


@dataclass(frozen=True)
class Names:
    """The names that a string may be, and the pattern of all others that it may be."""

    names: tuple[str, ...]
    pattern: str
    others: str
    """The pattern in words."""

    def __contains__(self, value: str) -> bool:
        return value in self.names or re.fullmatch(self.pattern, value) is not None

    def __str__(self) -> str:
        return f"one of {', '.join(self.names)}, or {self.others}"


Count = Annotated[int, Range(least=1)]
Positive = Annotated[float, Range(above=0, below=float("inf"))]
NonNegative = Annotated[float, Range(least=0, below=float("inf"))]
Share = Annotated[float, Range(least=0, most=1)]
Seed = Annotated[int, Range(least=0, most=2**63 - 1)]


# --- YAML --------------------------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """YAML 1.2, as DVC reads it; plain PyYAML follows 1.1. So 1e-05 is a number, and yes, on and 12:30 are strings.

    A duplicate key is refused; PyYAML would silently keep the last one.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"the key {key.value} occurs twice in one mapping, remove one",
                        problem_mark=key.start_mark,
                    )
                seen.add(key.value)
        return node


def _whole_number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node), 0)


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(?:0|[1-9][0-9_]*|0o[0-7]+|0x[0-9a-fA-F]+)", list("-+0123456789")),
    (
        "float",
        r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    ("merge", "<<", ["<"]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first)
_Loader.add_constructor("tag:yaml.org,2002:int", _whole_number)


def read_yaml(path: str | Path) -> Any:
    """The plain values of a YAML file, which is read as UTF-8 whatever the locale.

    Raises:
        ParamsError: it cannot be read, is not UTF-8 or not YAML, or a key occurs twice.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ParamsError(f"{path}: there is no such file; run from the project's folder") from None
    except OSError as error:
        raise ParamsError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ParamsError(f"{path} is not UTF-8 (byte {error.start + 1}): save it as UTF-8") from None
    return yaml_value(text, str(path))


def yaml_value(text: str, name: str) -> Any:
    """The plain value that a piece of YAML stands for.

    Args:
        name: where the text comes from, for error messages.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        at = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        tab = ": indent with spaces" if "'\\t'" in str(error.problem) else ""
        raise ParamsError(f"{name}{at} is not valid YAML: {error.problem or error.context}{tab}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ParamsError(f"{name} is not valid YAML: {' '.join(str(error).split())}") from None


# --- plain values ------------------------------------------------------------------------------------------------


def convert(value: Any, kind: Any, key: str, problems: list[str]) -> Any:
    """Convert `value` to the annotated type `kind`; append what is wrong to `problems`."""
    origin, args = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return _convert_section(value, kind, key, problems)
    if origin in (Union, UnionType):
        if value is None and NoneType in args:
            return None
        kinds = [arg for arg in args if arg is not NoneType]
        lists = [kind for kind in kinds if get_origin(kind) is list]  # of several kinds, one is a list
        return convert(value, lists[0] if lists and isinstance(value, list) else kinds[0], key, problems)
    if origin is Annotated:
        number, allowed = args
        before = len(problems)
        value = convert(value, number, key, problems)
        if len(problems) == before and value not in allowed:
            problems.append(f"{key} is {_shown(value)}: must be {allowed}")
        return value
    if origin is Literal:
        if not any(value == choice and type(value) is type(choice) for choice in args):
            problems.append(f"{key} is {_shown(value)}: must be one of {', '.join(map(str, args))}")
        return value
    if origin is list and isinstance(value, list):
        return [convert(item, args[0], f"{key}[{i}]", problems) for i, item in enumerate(value)]
    if origin is dict and isinstance(value, dict):
        return {
            name: item if args[1] is Any else convert(item, args[1], f"{key}.{name}", problems)
            for name, item in value.items()
        }
    if kind is float and type(value) is int:
        return float(value) if abs(value) < 2**1023 else math.inf
    if type(value) is not (origin or kind):
        remedy = f", write {value:.0f}" if kind is int and type(value) is float and value.is_integer() else ""
        problems.append(f"{key} is {_shown(value)}: must be {_KIND_NAMES[origin or kind]}{remedy}")
    return value


_KIND_NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a string",
    list: "a list",
    dict: "a mapping, {} for an empty one",
}


def _shown(value: Any) -> str:
    """A value as the user may search for it in the file: null instead of Python's None."""
    return "null" if value is None else repr(value)


def _convert_section(value: Any, kind: Any, key: str, problems: list[str]) -> Any:
    """`value` as an instance of the dataclass `kind`."""
    built = convert_entries(value, kind, key, problems)
    hints = get_type_hints(kind, include_extras=True)
    dot = f"{key}." if key else ""
    for field in fields(kind):
        if isinstance(value, dict) and field.name not in value and _is_required(field):
            problems.append(f"{dot}{field.name} is missing: {_describe(hints[field.name])}")
    return None if problems else kind(**built)


def convert_entries(value: Any, kind: Any, key: str, problems: list[str]) -> dict[str, Any]:
    """The fields of the dataclass `kind` that the mapping `value` holds, converted."""
    if not isinstance(value, dict):
        problems.append(f"{key or 'the file'} is {_shown(value)}: must be {_KIND_NAMES[dict]}")
        return {}
    every = get_type_hints(kind, include_extras=True)  # class variables too
    hints = {field.name: every[field.name] for field in fields(kind)}
    dot = f"{key}." if key else ""
    for name in value:
        if name not in hints:
            problems.append(f"{dot}{name} is {value[name]!r}: unknown key, allowed are {', '.join(hints)}")
    return {name: convert(value[name], hint, f"{dot}{name}", problems) for name, hint in hints.items() if name in value}


def _is_required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _describe(kind: Any) -> str:
    """The kind of value that a missing key needs, in words."""
    origin, args = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        nothing = "" if any(map(_is_required, fields(kind))) else ", or {} for the defaults"
        return f"a mapping with {', '.join(field.name for field in fields(kind))}{nothing}"
    if origin is Annotated:
        return str(args[1]) if args[0] is str else f"{_KIND_NAMES[args[0]]} {args[1]}"
    if origin is Literal:
        return f"one of {', '.join(map(str, args))}"
    if origin in (Union, UnionType):
        return f"{_describe(args[0])}, or null"
    return _KIND_NAMES[origin or kind]
