"""Typed parameters: the only definition of the keys of `params.yaml`, their values and their defaults.

Every section must be in the file, if only as {}, because DVC expects it there. Within a section, a key that has a
default may be left out.
"""

import math
import re
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from components.methods import Catrs, Consistency, Macer, SmoothAdv, SmoothMix, Stability, Sun2025
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


@dataclass(frozen=True)
class Validate:
    min_class_share: Share = 0.5
    """Smallest allowed share of a class in its split, relative to a perfectly balanced split."""


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


OWN = r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*"
"""The form of a dotted name: `my_package.my_module:function`."""
METHODS = Names(
    ("smoothmix", "gaussian", "stability", "smoothadv", "macer", "consistency", "catrs", "sun2025"),
    OWN,
    "package.module:function for one of your own (docs/own-method.md)",
)
NETWORKS = Names(
    ("small_convnet", "lenet", "resnet20", "resnet110", "resnet50"),
    rf"{OWN}|(torchvision|timm):[\w.-]+",
    "torchvision:NAME, timm:NAME, or package.module:function for one of your own (docs/own-network.md)",
)


Device = Literal["auto", "cpu", "cuda"]
"""`auto` takes the GPU where torch sees one, else the CPU; `cuda` fails where torch sees none."""


@dataclass(frozen=True, kw_only=True)
class Train:
    method: Annotated[str, METHODS] = "smoothmix"
    network: Annotated[str, NETWORKS]
    weights: str | None = None
    """Weights that the training starts from: a .safetensors or torch file, a model folder, or torchvision:NAME; null
    draws new ones. A relative path starts at the main checkout."""
    mean: list[Annotated[float, Range(above=-math.inf, below=math.inf)]] | None = None
    """Per channel, subtracted from the images inside the network; null takes the data's own mean and std."""
    std: list[Positive] | None = None
    """Per channel, what the difference is divided by."""
    epochs: Annotated[int, Range(least=0)]
    """0 trains nothing: the model is what `weights` holds."""
    batch_size: Count = 256
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """`sgd` has momentum .9, as all published runs."""
    learning_rate: Positive = 0.1
    weight_decay: NonNegative = 1e-4
    backbone_rate: NonNegative = 1.0
    """Factor of the learning rate for all layers but the last that has parameters; 0 freezes them, the statistics of
    batch norm included."""
    decay_every: Count | None = None
    """Epochs between two divisions of the learning rate by ten; null where nothing needs it."""
    decay_schedule: Literal["textbook", "published", "cosine"] = "textbook"
    """`textbook` drops at decay_every, 2*decay_every, ...; `published` one epoch later, as the published runs did;
    `cosine` falls from epoch to epoch along half a cosine, to 0 after the last."""
    warmup_epochs: Count = 1
    """Epochs over which smoothmix's mixed loss and smoothadv's attack reach their full strength; 1 is no warm-up."""
    threads: Count = 2
    """CPU threads: part of the result, as the order of summation depends on it."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """`bfloat16` runs the network's layers in bfloat16, for hardware that is faster at it; noise, losses and
    probabilities stay float32."""
    augment: Literal["none", "crop_flip"] = "none"
    """`crop_flip`: crops of the image with a border of 4 black pixels, mirrored half of the time."""
    processes: Count = 1
    """Processes that share the images of each step, on one machine: one per GPU, or one per few CPU cores."""
    device: Device = "auto"
    smoothmix: SmoothMix = field(default_factory=SmoothMix)
    stability: Stability = field(default_factory=Stability)
    smoothadv: SmoothAdv = field(default_factory=SmoothAdv)
    macer: Macer = field(default_factory=Macer)
    consistency: Consistency = field(default_factory=Consistency)
    catrs: Catrs = field(default_factory=Catrs)
    sun2025: Sun2025 = field(default_factory=Sun2025)
    own_method: dict[str, Any] = field(default_factory=dict)
    """The hyper-parameters of a method of your own, as they are written; the dataclass beside it checks them."""

    @property
    def section(self) -> str:
        """The name of the selected method's section."""
        return self.method if self.method in METHODS.names else OWN_METHOD

    @property
    def hyperparameters(self) -> Any:
        """The section of the selected method; None for gaussian, which has no hyper-parameters."""
        return getattr(self, self.section, None)

    @property
    def targets(self) -> str | None:
        """The model that the selected method takes its targets from; None where it needs none."""
        return self.catrs.targets if self.method == "catrs" else None

    @property
    def brought(self) -> dict[str, str]:
        """The names of network and method, those that are not ours: what they stand for is no part of this project."""
        chosen = {"network": (self.network, NETWORKS), "method": (self.method, METHODS)}
        return {field: name for field, (name, ours) in chosen.items() if name not in ours.names}

    @property
    def facts(self) -> dict[str, Any]:
        """The parameters that a training depends on, flat; of the methods, only the selected one's hyper-parameters."""
        values = asdict(self)
        del values["device"]  # which one is taken counts, not what was asked for
        sections = {name: values.pop(name) for name in (*METHOD_SECTIONS, OWN_METHOD)}
        own = sections.get(self.section, {}).items()
        return values | {f"{self.section}.{name}": value for name, value in own}


METHOD_SECTIONS = {name: hint for name, hint in get_type_hints(Train).items() if is_dataclass(hint)}
"""The classes of the methods' hyper-parameters, by the method's name."""
OWN_METHOD = "own_method"
"""The section of a method of the user's own."""


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
        problems += _train_checks(params)
    if getattr(params.train.hyperparameters, "splits_batch", False) and not problems:
        m = max(params.train_at(sigma).hyperparameters.num_noises for sigma in params.sigmas)
        if params.train.batch_size < m:
            problems.append(
                f"train.batch_size is {params.train.batch_size}: must be >= num_noises at every level ({m})"
            )
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


def _train_checks(params: Params) -> list[str]:
    """Weights, normalisation and schedule: what is missing, and what contradicts itself."""
    train, problems = params.train, []
    for sigma in params.sigmas:
        weights = params.train_at(sigma).weights
        at = f"noise_levels.{level_key(sigma)}.weights" if weights != train.weights else "train.weights"
        if weights is None and train.epochs == 0:
            problems.append(f"{at} is null: train.epochs is 0, so sigma {sigma} needs the weights of a trained network")
        elif weights is None and train.backbone_rate == 0:
            problems.append(f"{at} is null: train.backbone_rate is 0, so sigma {sigma} needs weights to freeze")
        elif weights is not None and (wrong := _wrong_with(weights, train.network)):
            problems.append(f"{at} is {weights!r}: {wrong}")
    problems += _preparation_checks(params)
    mean, std = train.mean, train.std
    if (mean is None) != (std is None) or (mean and std and len(mean) != len(std)) or mean == [] or std == []:
        given = " and ".join(f"train.{name} is {value or 'null'}" for name, value in (("mean", mean), ("std", std)))
        problems.append(f"{given}: give one number per channel in both, or null in both")
    deferred = train.method == "macer" and any(params.train_at(sigma).macer.deferred for sigma in params.sigmas)
    if train.decay_every is None and train.epochs and (train.decay_schedule != "cosine" or deferred):
        reader = "macer.deferred" if deferred else f"decay_schedule {train.decay_schedule}"
        problems.append(f"train.decay_every is null: {reader} needs a number of epochs")
    return problems


def _preparation_checks(params: Params) -> list[str]:
    """The methods that compute something of all images between their epochs."""
    train, problems = params.train, []
    if train.method in ("catrs", "sun2025") and train.processes > 1:
        problems.append(f"train.processes is {train.processes}: {train.method} trains in one process, set it to 1")
    for sigma in params.sigmas:
        own = params.train_at(sigma)
        at = f"noise_levels.{level_key(sigma)}" if own.hyperparameters != train.hyperparameters else "train"
        if train.method == "catrs" and own.targets is None:
            problems.append(f"{at}.catrs.targets is null: give a model of Gaussian training (docs/methods.md)")
        elif train.method == "catrs" and (wrong := _wrong_with(own.targets or "", train.network)):
            problems.append(f"{at}.catrs.targets is {own.targets!r}: {wrong}")
        elif train.method == "sun2025" and train.epochs and own.sun2025.selection_epoch >= train.epochs:
            problems.append(
                f"{at}.sun2025.selection_epoch is {own.sun2025.selection_epoch}: must be < train.epochs "
                f"({train.epochs}), or nothing is selected"
            )
    return problems


def _wrong_with(weights: str, network: str) -> str:
    """What speaks against such weights before anything is read; empty if nothing does."""
    if not weights:
        return "must be a path, torchvision:NAME, or null"
    if Path(weights).parts[:2] == ("outputs", "models"):
        return "the training writes there, and DVC empties the folder first: copy it elsewhere"
    if weights.startswith("torchvision:") and not (network.startswith("torchvision:") or network == "resnet50"):
        return f"fits torchvision's networks alone, not {network}"
    return ""


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


def smallest_n(failure_prob: float, bound: Bound) -> int:
    """The fewest samples that can certify anything: with hits alone, p_lower is failure_prob**(1/n), with the share of
    failure_prob that it gets, and must exceed 1/2."""
    for_hits = failure_prob * (1 - RIVAL_SHARE if bound == "two_class" else 1)
    return math.floor(math.log2(1 / for_hits)) + 1
