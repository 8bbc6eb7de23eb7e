"""Typed parameters: the only definition of the keys of `params.yaml`, their values and their defaults.

Every section must be in the file, if only as {}, because DVC expects it there. Within a section, a key that has a
default may be left out.
"""

import math
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from components.parsing import (
    Count,
    NonNegative,
    ParamsError,
    Positive,
    Range,
    Seed,
    Share,
    convert,
    convert_entries,
    read_yaml,
)
from components.prepare import Prepare, prepare_problems
from components.train import METHOD_SECTIONS, Device, train_problems
from components.train import METHODS as METHODS
from components.train import OWN_METHOD as OWN_METHOD
from components.train import Train as Train


@dataclass(frozen=True)
class Validate:
    min_class_share: Share = 0.5
    """Smallest allowed share of a class in its split, relative to a perfectly balanced split."""


@dataclass(frozen=True)
class Sequential:
    """The settings of the sequential procedure."""

    radii: list[NonNegative] = field(default_factory=lambda: [0.25, 0.5, 1.0])
    """The preset radii; a noise level leaves out those that n samples cannot certify there."""
    reject_prob: Annotated[float, Range(above=0, below=0.5)] = 0.0001
    """Probability of rejecting a radius that holds: costs completeness, never soundness."""


Bound = Literal["two_class", "one_class"]
RIVAL_SHARE = 0.1
"""The share of failure_prob that the two-class bound spends on the rival, the rest being for the class itself."""


def smallest_n(failure_prob: float, bound: Bound) -> int:
    """The fewest samples that can certify anything: with hits alone, p_lower is failure_prob**(1/n), with the share of
    failure_prob that it gets, and must exceed 1/2."""
    for_hits = failure_prob * (1 - RIVAL_SHARE if bound == "two_class" else 1)
    return math.floor(math.log2(1 / for_hits)) + 1


@dataclass(frozen=True)
class Certify:
    mode: Literal["reference", "sequential"] = "reference"
    """`reference`: the largest radius that n samples certify. `sequential`: preset radii, with as few samples as each
    image needs."""
    n0: Count = 100
    """Samples that select the class."""
    n: Count = 100_000
    """Fresh samples that bound its probability; in sequential mode, the most that an image gets."""
    failure_prob: Annotated[float, Range(above=0, below=0.5)] = 0.001
    bound: Bound = "two_class"
    """`two_class`: a radius comes from the hits of the class and of its strongest rival. `one_class`: from those of the
    class alone, as in all published tables."""
    early_abstention: bool = False
    """Reference mode: stop sampling an image once a radius has become improbable."""
    sequential: Sequential = field(default_factory=Sequential)
    every: Count = 1
    """Certify every k-th test image."""
    compile: bool = False
    """Compile the network for this machine: pays off on long certifications."""
    processes: Count = 1
    """Processes that share the images; the table does not depend on their number."""
    device: Device = "auto"
    block: Count | None = None
    """Samples in one forward, which a table's identity holds: rounding may depend on it. null takes what suits the
    device and the images' size; `make gpu` measures some on a GPU."""


@dataclass(frozen=True)
class Evaluate:
    radii: list[NonNegative] = field(default_factory=lambda: [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0])
    """Radii at which certified accuracy is reported."""


MODEL_NAME = "[A-Za-z0-9._-]{1,200}"
"""Names that MLflow accepts and that need no escaping in its filters, in a shell or in a URI."""


@dataclass(frozen=True)
class Register:
    name: str
    """Registered models are called <name>-sigma-<sigma>."""


@dataclass(frozen=True)
class Promote:
    """When a challenger takes the champion's place."""

    min_gain: NonNegative = 0.005
    """The lower end of the paired interval of the ACR difference must exceed this."""
    radii: list[NonNegative] = field(default_factory=lambda: [0.0, 0.25, 0.5, 1.0])
    """Radii at which no certified accuracy may be lost; a noise level leaves out those that it cannot certify."""
    confidence: Annotated[float, Range(above=0.5, below=1)] = 0.95
    """Confidence level of the paired intervals; a loss is a Holm-adjusted p-value of at most 1 - confidence."""
    min_clean_accuracy: Share = 0.5
    """Smallest allowed accuracy of the smoothed classifier."""
    max_abstention: Share = 0.5
    """Largest allowed share of images without an answer."""
    approval: Literal["on_hold", "always"] = "on_hold"
    """When a person is asked: only if the verdict is HOLD, or also before every promotion."""
    approval_hours: Positive = 48.0
    """How long a question stays open; silence keeps the champion."""


@dataclass(frozen=True)
class Params:
    seed: Seed
    noise_levels: dict[str, dict[str, Any]]
    """The sigmas, each with the hyper-parameters that differ at that level, by method, and with its own weights."""
    prepare: Prepare
    validate: Validate
    train: Train
    certify: Certify
    evaluate: Evaluate
    register: Register
    promote: Promote

    @property
    def sigmas(self) -> list[float]:
        return [float(key) for key in self.noise_levels]

    def train_at(self, sigma: float) -> Train:
        """The training parameters at one noise level: the level's own weights and hyper-parameters over the others."""
        section, common = self.train.section, self.train.hyperparameters
        level = self.noise_levels[level_key(sigma)]
        own = {"weights": level["weights"]} if "weights" in level else {}
        if level.get(section):
            merged = common | level[section] if section == OWN_METHOD else replace(common, **level[section])
            own[section] = merged
        return replace(self.train, **own)


def level_key(sigma: float) -> str:
    """How a sigma is written in params.yaml, in paths and in stage names: the shortest decimal, 0.25 or 1.0."""
    return str(float(sigma))


def load(path: str | Path = "params.yaml") -> Params:
    """Read and check the whole file.

    Raises:
        ParamsError: naming every key that is wrong, its value and what is allowed.
    """
    raw = read_yaml(path)
    if raw is None:
        raise ParamsError(f"{path} is empty: copy one of recipes/ to it")
    try:
        return parse(raw)
    except ParamsError as error:
        raise ParamsError(f"{path}: {error}") from None


def parse(raw: Any) -> Params:
    """Check a tree of plain values against `Params` and build it; see `load`."""
    problems: list[str] = []
    params = convert(raw, Params, "", problems)
    if not problems:
        problems = _cross_checks(params)
    if problems:
        raise ParamsError("; ".join(problems))
    return params


def _cross_checks(params: Params) -> list[str]:
    """Checks beyond a single field's type and range."""
    problems: list[str] = []
    if not params.noise_levels:
        problems.append("noise_levels is {}: name at least one sigma, for example '0.5': {}")
    for key, level in params.noise_levels.items():
        _check_level(key, level, problems)
    problems += prepare_problems(params.prepare)
    if not problems:
        problems += train_problems(params.train, {level_key(sigma): params.train_at(sigma) for sigma in params.sigmas})
    least = smallest_n(params.certify.failure_prob, params.certify.bound)
    if params.certify.n < least:
        problems.append(
            f"certify.n is {params.certify.n}: at least {least} samples are needed to certify anything "
            f"at failure_prob {params.certify.failure_prob:g}"
        )
    if params.certify.mode == "sequential" and params.certify.early_abstention:
        problems.append("certify.early_abstention is True: belongs to mode reference, set it to false")
    for name, radii in (
        ("evaluate.radii", params.evaluate.radii),
        ("certify.sequential.radii", params.certify.sequential.radii),
        ("promote.radii", params.promote.radii),
    ):
        if sorted(set(radii)) != radii or not radii:
            problems.append(f"{name} is {radii!r}: must be increasing and not empty")
    if not re.fullmatch(MODEL_NAME, params.register.name):
        problems.append(
            f"register.name is {params.register.name!r}: must be 1 to 200 of the characters A-Z a-z 0-9 . _ -"
        )
    return problems


def _check_level(key: Any, level: dict[str, Any], problems: list[str]) -> None:
    """Check one noise level's key, and convert its hyper-parameters in place."""
    at = f"noise_levels.{key}"
    try:
        canonical = isinstance(key, str) and level_key(float(key)) == key and 0 < float(key) < float("inf")
    except ValueError:
        canonical = False
    if isinstance(key, int | float):
        problems.append(f"{at}: a noise level is a quoted sigma: write '{level_key(key)}'")
    elif not canonical:
        problems.append(f"{at}: a noise level is a quoted sigma > 0 in its shortest form, such as '0.25' or '1.0'")
    for method, section in level.items():
        if method == "weights":
            level[method] = convert(section, str | None, f"{at}.weights", problems)
        elif method in METHOD_SECTIONS:
            level[method] = convert_entries(section, METHOD_SECTIONS[method], f"{at}.{method}", problems)
        elif method == OWN_METHOD:
            level[method] = convert(section, dict[str, Any], f"{at}.{method}", problems)
        else:
            allowed = ", ".join([*METHOD_SECTIONS, OWN_METHOD, "weights"])
            problems.append(f"{at}.{method} is {section!r}: unknown key, allowed are {allowed}")
