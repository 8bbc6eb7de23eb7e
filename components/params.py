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
    source: Literal["digits", "mnist", "cifar10", "image_folder", "imagenet"]
    root: str | None
    """Folder (image_folder: or archive) that the source's files lie in; null for digits, and for data/raw with
    `download`. A relative path counts from the main checkout."""
    download: bool
    """Fetch what is not there yet."""
    test_share: Annotated[float, Range(above=0, below=1)] | None
    """Share of the images held out for certification, stratified by class; null where the source has a test split."""
    enlarge: Annotated[int, Range(least=1, most=32)] | None
    """Each pixel becomes a square of this side (pixel replication)."""
    image_size: Annotated[int, Range(least=8, most=1024)] | None
    """Side of the square that images of any size are resized and cropped to."""
    channels: Literal[1, 3] | None
    """1 turns images into grey, 3 into RGB."""


SOURCE_OPTIONS = {
    "digits": {"test_share", "enlarge"},
    "mnist": {"root", "download"},
    "cifar10": {"root", "download"},
    "image_folder": {"root", "test_share", "image_size", "channels"},
    "imagenet": {"root"},
}
"""What of `prepare` each source takes; the rest must be null, and `download` false."""


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
class Stability:
    """Stability training: Li et al., NeurIPS 2019."""

    weight: NonNegative
    """lambda: weight of the cross-entropy between the answers without and with noise."""


@dataclass(frozen=True)
class SmoothAdv:
    """Salman et al., NeurIPS 2019, with their attack by projected gradient descent."""

    num_noises: Count
    """m: noises per image, and the number of optimiser steps that a loaded batch is split into."""
    attack_steps: Count
    """T: steps of the descent, each 2/T of the radius long."""
    attack_radius: NonNegative
    """epsilon: radius of the L2 ball around the image that the attack stays in, in pixel units."""


@dataclass(frozen=True)
class Macer:
    """Zhai et al., ICLR 2020."""

    num_noises: Count
    """k: noises per image; the whole loaded batch is one optimiser step."""
    weight: NonNegative
    """lambda: weight of the robustness loss."""
    margin: Positive
    """gamma: robustness from which on an image adds nothing, as Phi^-1(p1) - Phi^-1(p2): twice the radius / sigma."""
    inverse_temperature: Positive
    """beta: factor of the logits in the robustness loss; the larger, the nearer their softmax is to a vote."""
    deferred: bool
    """Whether the robustness loss waits until the learning rate has dropped: weight 0 up to epoch `decay_every`."""


@dataclass(frozen=True)
class Consistency:
    """Jeong & Shin, NeurIPS 2020."""

    num_noises: Count
    """m: noises per image, and the number of optimiser steps that a loaded batch is split into."""
    weight: NonNegative
    """lambda: weight of the divergence of each noise's answer from their mean."""
    entropy_weight: NonNegative
    """eta: weight of the entropy of the mean answer."""


SPLITTING_METHODS = ("smoothmix", "smoothadv", "consistency")
"""Those that split a loaded batch into `num_noises` groups, each one optimiser step; the others take it whole."""


@dataclass(frozen=True)
class Train:
    method: Literal["smoothmix", "gaussian", "stability", "smoothadv", "macer", "consistency"]
    network: Literal["small_convnet", "lenet", "resnet20", "resnet110", "resnet50"]
    epochs: Count
    batch_size: Count
    learning_rate: Positive
    decay_every: Count
    """Epochs between two divisions of the learning rate by ten."""
    decay_schedule: Literal["textbook", "published"]
    """`textbook` drops at decay_every, 2*decay_every, ...; `published` one epoch later, as the published runs did."""
    warmup_epochs: Count
    """Epochs over which smoothmix's mixed loss and smoothadv's attack reach their full strength."""
    threads: Count
    """CPU threads: part of the result, as the order of summation depends on it."""
    precision: Literal["float32", "bfloat16"]
    """`bfloat16`: the layers of the network, where the hardware is faster at it; noise, losses and probabilities stay
    float32."""
    augment: Literal["none", "crop_flip"]
    """`crop_flip`: crops of the image with a border of 4 black pixels, mirrored half of the time."""
    processes: Count
    """Processes that share the images of each step, on one machine: one per GPU, or one per few CPU cores."""
    smoothmix: SmoothMix
    stability: Stability
    smoothadv: SmoothAdv
    macer: Macer
    consistency: Consistency

    @property
    def hyperparameters(self) -> Any:
        """The section of the selected method; None for gaussian, which has no hyper-parameters."""
        return getattr(self, self.method, None)


METHOD_SECTIONS = {name: hint for name, hint in get_type_hints(Train).items() if is_dataclass(hint)}
"""The classes of the methods' hyper-parameters, by the method's name."""


@dataclass(frozen=True)
class Sequential:
    """What the sequential procedure asks."""

    radii: list[NonNegative]
    """The preset radii; a noise level leaves out those that n samples cannot certify there."""
    reject_prob: Annotated[float, Range(above=0, below=0.5)]
    """Probability of rejecting a radius that holds: costs completeness, never soundness."""


@dataclass(frozen=True)
class Certify:
    mode: Literal["reference", "sequential"]
    """`reference`: the largest radius that n samples certify. `sequential`: preset radii, with as few samples as each
    image needs."""
    n0: Count
    """Samples that select the class."""
    n: Count
    """Fresh samples that bound its probability; in sequential mode, the most that an image gets."""
    failure_prob: Annotated[float, Range(above=0, below=0.5)]
    early_abstention: bool
    """Reference mode: stop sampling an image once a radius has become improbable."""
    sequential: Sequential
    every: Count
    """Certify every k-th test image."""
    compile: bool
    """Run the network compiled for this machine: worth the compiling on long certifications."""
    processes: Count
    """Processes that share the images; one table comes out, the same for any number."""


@dataclass(frozen=True)
class Evaluate:
    radii: list[NonNegative]
    """Radii at which certified accuracy is reported."""


@dataclass(frozen=True)
class Register:
    name: str
    """Registered models are called <name>-sigma-<sigma>."""


@dataclass(frozen=True)
class Promote:
    """When a challenger takes the champion's place."""

    min_gain: NonNegative
    """What the lower end of the paired interval of the ACR's difference must exceed."""
    radii: list[NonNegative]
    """Radii at which no certified accuracy may be lost; a noise level leaves out those that it cannot certify."""
    confidence: Annotated[float, Range(above=0.5, below=1)]
    """Of the paired intervals; a loss is a Holm-adjusted p-value of at most 1 - confidence."""
    min_clean_accuracy: Share
    """Floor of the smoothed classifier's accuracy."""
    max_abstention: Share
    """Ceiling of the share of images without an answer."""
    approval: Literal["on_hold", "always"]
    """When a person is asked: where the verdict is HOLD, or before every promotion too."""
    approval_hours: Positive
    """How long a question stays open; silence keeps the champion."""


@dataclass(frozen=True)
class Params:
    seed: Seed
    noise_levels: dict[str, dict[str, Any]]
    """The sigmas, each with the hyper-parameters that differ at that level, by method."""
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
        """The training parameters at one noise level: the level's own hyper-parameters over the method's."""
        method = self.train.method
        level = self.noise_levels[level_key(sigma)].get(method)
        return replace(self.train, **{method: replace(self.train.hyperparameters, **level)}) if level else self.train


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


_KIND_NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "a mapping",
}


def _convert_section(value: Any, kind: Any, key: str, problems: list[str]) -> Any:
    """`value` as an instance of the dataclass `kind`."""
    built = _convert_entries(value, kind, key, problems)
    hints = get_type_hints(kind, include_extras=True)
    dot = f"{key}." if key else ""
    for field in fields(kind):
        if isinstance(value, dict) and field.name not in value and field.default is MISSING:
            problems.append(f"{dot}{field.name} is missing: {_describe(hints[field.name])}")
    return None if problems else kind(**built)


def _convert_entries(value: Any, kind: Any, key: str, problems: list[str]) -> dict[str, Any]:
    """Those fields of the dataclass `kind` that the mapping `value` holds."""
    if not isinstance(value, dict):
        problems.append(f"{key or 'the file'} is {value!r}: must be a mapping")
        return {}
    hints = get_type_hints(kind, include_extras=True)
    dot = f"{key}." if key else ""
    for name in value:
        if name not in hints:
            problems.append(f"{dot}{name} is {value[name]!r}: unknown key, allowed are {', '.join(hints)}")
    return {
        name: _convert(value[name], hint, f"{dot}{name}", problems) for name, hint in hints.items() if name in value
    }


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
    problems: list[str] = []
    if not params.noise_levels:
        problems.append("noise_levels is {}: name at least one sigma, for example '0.5': {}")
    for key, level in params.noise_levels.items():
        _check_level(key, level, problems)
    problems += _prepare_checks(params.prepare)
    if params.train.method in SPLITTING_METHODS and not problems:
        m = max(params.train_at(sigma).hyperparameters.num_noises for sigma in params.sigmas)
        if params.train.batch_size < m:
            problems.append(
                f"train.batch_size is {params.train.batch_size}: must be >= num_noises at every level ({m})"
            )
    least = smallest_n(params.certify.failure_prob)
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
    if not params.register.name or set(params.register.name) & set("/:"):
        problems.append(f"register.name is {params.register.name!r}: must not be empty nor contain '/' or ':'")
    return problems


def _prepare_checks(prepare: Prepare) -> list[str]:
    """Options that the source does not take, and those it cannot do without."""
    source, takes = prepare.source, SOURCE_OPTIONS[prepare.source]
    problems = []
    for field in fields(Prepare):
        value = getattr(prepare, field.name)
        if field.name != "source" and field.name not in takes and value not in (None, False):
            nothing = "false" if field.name == "download" else "null"
            problems.append(
                f"prepare.{field.name} is {value!r}: {source} takes {', '.join(sorted(takes))} alone, "
                f"so set it to {nothing}"
            )
    needed = {"root"} if "root" in takes and not prepare.download else set()
    needed |= {"test_share", "enlarge"} if source == "digits" else takes & {"image_size", "channels"}
    problems += [
        f"prepare.{name} is null: {source} needs {_NEEDS[name]}"
        for name in sorted(needed)
        if getattr(prepare, name) is None
    ]
    if prepare.root == "":
        problems.append("prepare.root is '': must be a path, or null")
    return problems


_NEEDS = {
    "root": "the path of its files",
    "test_share": "the share of the images to hold out",
    "enlarge": "the side of a pixel, 1 for none",
    "image_size": "the side of the images in pixels",
    "channels": "1 (grey) or 3 (RGB)",
}


def _check_level(key: Any, level: dict[str, Any], problems: list[str]) -> None:
    """Check one noise level's key, and convert its hyper-parameters in place."""
    at = f"noise_levels.{key}"
    try:
        canonical = isinstance(key, str) and level_key(float(key)) == key and 0 < float(key) < float("inf")
    except ValueError:
        canonical = False
    if not canonical:
        problems.append(f"{at}: a noise level is a quoted sigma > 0 in its shortest form, such as '0.25' or '1.0'")
    for method, section in level.items():
        if method in METHOD_SECTIONS:
            level[method] = _convert_entries(section, METHOD_SECTIONS[method], f"{at}.{method}", problems)
        else:
            problems.append(f"{at}.{method} is {section!r}: unknown key, allowed are {', '.join(METHOD_SECTIONS)}")


def smallest_n(failure_prob: float) -> int:
    """The fewest samples that can certify anything: p_lower, at most failure_prob**(1/n), must exceed 1/2."""
    return math.floor(math.log2(1 / failure_prob)) + 1
