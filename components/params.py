"""Typed parameters: the one description of what `params.yaml` may say.

Plain dataclasses, no validation library: machines that only train or certify have none installed.
"""

import math
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
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


Count = Annotated[int, Range(least=1)]
Positive = Annotated[float, Range(above=0, below=float("inf"))]
NonNegative = Annotated[float, Range(least=0, below=float("inf"))]
Share = Annotated[float, Range(least=0, most=1)]
Seed = Annotated[int, Range(least=0, most=2**63 - 1)]


@dataclass(frozen=True)
class Prepare:
    source: Literal["digits"]
    test_share: Annotated[float, Range(above=0, below=1)]
    """Share of the images held out for certification, stratified by class."""
    enlarge: Annotated[int, Range(least=1, most=32)]
    """Each pixel becomes a square of this side (pixel replication)."""


@dataclass(frozen=True)
class Validate:
    min_class_share: Share
    """Every class holds at least this share of its split, relative to a perfectly balanced one."""


@dataclass(frozen=True)
class SmoothMix:
    """Jeong et al., NeurIPS 2021."""

    num_noises: Count
    """m: noises per image, and the number of optimiser steps that a loaded batch is split into."""
    attack_steps: Annotated[int, Range(least=0)]
    """T: steps of gradient ascent."""
    step_size: Positive
    """L2 length of one step, in pixel units (the paper's alpha)."""
    mix_weight: NonNegative
    """eta: weight of the mixed loss."""
    clean_step: Literal[0, 1]
    """s: 1 replaces the clean image by its one-step adversary."""
    attack_radius: Positive | None
    """Radius of an L2 ball around the image that the attack stays in; null for none."""


@dataclass(frozen=True)
class Train:
    method: Literal["smoothmix", "gaussian"]
    network: Literal["small_convnet", "lenet", "resnet20", "resnet110", "resnet50"]
    epochs: Count
    batch_size: Count
    learning_rate: Positive
    decay_every: Count
    """Epochs between two divisions of the learning rate by ten."""
    decay_schedule: Literal["textbook", "published"]
    """`textbook` drops at decay_every, 2*decay_every, ...; `published` one epoch later, as the published runs did."""
    warmup_epochs: Count
    """Epochs over which the method's own loss terms reach their full weight."""
    threads: Count
    """CPU threads: part of the result, as the order of summation depends on it."""
    smoothmix: SmoothMix
    precision: Literal["float32", "bfloat16"] = "float32"
    """`bfloat16`: the layers of the network, where the hardware is faster at it; noise, losses and probabilities stay
    float32."""
    augment: Literal["none", "crop_flip"] = "none"
    """`crop_flip`: crops of the image with a border of 4 black pixels, mirrored half of the time."""
    processes: Count = 1
    """Processes that share the images of each step, on one machine: one per GPU, or one per few CPU cores."""


@dataclass(frozen=True)
class Certify:
    n0: Count
    """Samples that select the class."""
    n: Count
    """Fresh samples that bound its probability."""
    failure_prob: Annotated[float, Range(above=0, below=0.5)]
    every: Count
    """Certify every k-th test image."""


@dataclass(frozen=True)
class Evaluate:
    radii: list[NonNegative]
    """Radii at which certified accuracy is reported."""


@dataclass(frozen=True)
class Register:
    name: str
    """Registered models are called <name>-sigma-<sigma>."""


@dataclass(frozen=True)
class Params:
    seed: Seed
    noise_levels: dict[str, dict[str, Any]]
    """The sigmas, each with the hyper-parameters of the method that differ at that level."""
    prepare: Prepare
    validate: Validate
    train: Train
    certify: Certify
    evaluate: Evaluate
    register: Register

    @property
    def sigmas(self) -> list[float]:
        return [float(key) for key in self.noise_levels]

    def train_at(self, sigma: float) -> Train:
        """The training parameters at one noise level: the level's own hyper-parameters over the method's."""
        level = self.noise_levels[level_key(sigma)]
        if self.train.method == "gaussian":  # has no hyper-parameters of its own
            return self.train
        return replace(self.train, smoothmix=replace(self.train.smoothmix, **level))


def level_key(sigma: float) -> str:
    """How a sigma is written in params.yaml, in paths and in stage names: the shortest decimal, 0.25 or 1.0."""
    return str(float(sigma))


def load(path: str | Path = "params.yaml") -> Params:
    """Read and check the whole file.

    Raises:
        ParamsError: naming every key that is wrong, its value and what is allowed.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ParamsError(f"{path}: {error.strerror}; run from the project's folder") from None
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ParamsError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    try:
        return parse(raw)
    except ParamsError as error:
        raise ParamsError(f"{path}: {error}") from None


def parse(raw: Any) -> Params:
    """Check a tree of plain values against `Params` and build it; see `load`."""
    problems: list[str] = []
    params = _convert(raw, Params, "", problems)
    if not problems:
        problems = _cross_checks(params)
    if problems:
        raise ParamsError("; ".join(problems))
    return params


def _convert(value: Any, kind: Any, key: str, problems: list[str]) -> Any:
    """`value` as an instance of the annotation `kind`; what is wrong is appended to `problems`."""
    origin, args = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return _convert_section(value, kind, key, problems)
    if origin in (Union, UnionType):
        if value is None and NoneType in args:
            return None
        (kind,) = (arg for arg in args if arg is not NoneType)
        return _convert(value, kind, key, problems)
    if origin is Annotated:
        number, allowed = args
        before = len(problems)
        value = _convert(value, number, key, problems)
        if len(problems) == before and value not in allowed:
            problems.append(f"{key} is {value!r}: must be {allowed}")
        return value
    if origin is Literal:
        if not any(value == choice and type(value) is type(choice) for choice in args):
            problems.append(f"{key} is {value!r}: must be one of {', '.join(map(str, args))}")
        return value
    if origin is list and isinstance(value, list):
        return [_convert(item, args[0], f"{key}[{i}]", problems) for i, item in enumerate(value)]
    if origin is dict and isinstance(value, dict):
        return {
            name: item if args[1] is Any else _convert(item, args[1], f"{key}.{name}", problems)
            for name, item in value.items()
        }
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not (origin or kind):
        problems.append(f"{key} is {value!r}: must be {_KIND_NAMES[origin or kind]}")
    return value


_KIND_NAMES = {int: "a whole number", float: "a number", str: "a text", list: "a list", dict: "a mapping"}


def _convert_section(value: Any, kind: Any, key: str, problems: list[str]) -> Any:
    if not isinstance(value, dict):
        problems.append(f"{key or 'the file'} is {value!r}: must be a mapping")
        return None
    hints = get_type_hints(kind, include_extras=True)
    dot = f"{key}." if key else ""
    for name in value:
        if name not in hints:
            problems.append(f"{dot}{name} is {value[name]!r}: unknown key, allowed are {', '.join(hints)}")
    built = {}
    for field in fields(kind):
        if field.name in value:
            built[field.name] = _convert(value[field.name], hints[field.name], f"{dot}{field.name}", problems)
        elif field.default is MISSING:
            problems.append(f"{dot}{field.name} is missing: {_describe(hints[field.name])}")
    return None if problems else kind(**built)


def _describe(kind: Any) -> str:
    """What a missing key wants, in words."""
    origin, args = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return f"a mapping with {', '.join(field.name for field in fields(kind))}"
    if origin is Annotated:
        return f"{_KIND_NAMES[args[0]]} {args[1]}"
    if origin is Literal:
        return f"one of {', '.join(map(str, args))}"
    if origin in (Union, UnionType):
        return f"{_describe(args[0])}, or null"
    return _KIND_NAMES[origin or kind]


def _cross_checks(params: Params) -> list[str]:
    """What no single field can say."""
    problems = []
    if not params.noise_levels:
        problems.append("noise_levels is {}: name at least one sigma, for example '0.5': {}")
    hints = get_type_hints(SmoothMix, include_extras=True)
    for key, level in params.noise_levels.items():
        at = f"noise_levels.{key}"
        try:
            canonical = isinstance(key, str) and level_key(float(key)) == key and 0 < float(key) < float("inf")
        except ValueError:
            canonical = False
        if not canonical:
            problems.append(f"{at}: a noise level is a quoted sigma > 0 in its shortest form, such as '0.25' or '1.0'")
        for name, value in level.items():
            if name in hints:
                level[name] = _convert(value, hints[name], f"{at}.{name}", problems)
            else:
                problems.append(f"{at}.{name} is {value!r}: unknown key, allowed are {', '.join(hints)}")
    base = params.train.smoothmix.num_noises
    m = base if problems else max(params.train_at(sigma).smoothmix.num_noises for sigma in params.sigmas)
    if params.train.method == "smoothmix" and params.train.batch_size < m:
        problems.append(f"train.batch_size is {params.train.batch_size}: must be >= num_noises at every level ({m})")
    least = smallest_n(params.certify.failure_prob)
    if params.certify.n < least:
        problems.append(
            f"certify.n is {params.certify.n}: at least {least} samples are needed to certify anything "
            f"at failure_prob {params.certify.failure_prob:g}"
        )
    if sorted(set(params.evaluate.radii)) != params.evaluate.radii or not params.evaluate.radii:
        problems.append(f"evaluate.radii is {params.evaluate.radii!r}: must be increasing and not empty")
    if not params.register.name or set(params.register.name) & set("/:"):
        problems.append(f"register.name is {params.register.name!r}: must not be empty nor contain '/' or ':'")
    return problems


def smallest_n(failure_prob: float) -> int:
    """The fewest samples that can certify anything: p_lower, at most failure_prob**(1/n), must exceed 1/2."""
    return math.floor(math.log2(1 / failure_prob)) + 1
