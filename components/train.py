"""The section `train` of params.yaml: network, method and schedule."""

import math
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from components.methods import Catrs, Consistency, Macer, SmoothAdv, SmoothMix, Stability, Sun2025
from components.parsing import Count, Names, NonNegative, Positive, Range

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


def train_problems(train: Train, levels: dict[str, Train]) -> list[str]:
    """What is missing, and what contradicts itself.

    Args:
        levels: the parameters at each noise level, by its key.
    """
    problems = []
    for key, own in levels.items():
        at = f"noise_levels.{key}.weights" if own.weights != train.weights else "train.weights"
        if own.weights is None and train.epochs == 0:
            problems.append(f"{at} is null: train.epochs is 0, so sigma {key} needs the weights of a trained network")
        elif own.weights is None and train.backbone_rate == 0:
            problems.append(f"{at} is null: train.backbone_rate is 0, so sigma {key} needs weights to freeze")
        elif own.weights is not None and (wrong := _wrong_with(own.weights, train.network)):
            problems.append(f"{at} is {own.weights!r}: {wrong}")
    problems += _preparation_problems(train, levels)
    mean, std = train.mean, train.std
    if (mean is None) != (std is None) or (mean and std and len(mean) != len(std)) or mean == [] or std == []:
        given = " and ".join(f"train.{name} is {value or 'null'}" for name, value in (("mean", mean), ("std", std)))
        problems.append(f"{given}: give one number per channel in both, or null in both")
    deferred = train.method == "macer" and any(own.macer.deferred for own in levels.values())
    if train.decay_every is None and train.epochs and (train.decay_schedule != "cosine" or deferred):
        reader = "macer.deferred" if deferred else f"decay_schedule {train.decay_schedule}"
        problems.append(f"train.decay_every is null: {reader} needs a number of epochs")
    if getattr(train.hyperparameters, "splits_batch", False) and not problems:
        m = max(own.hyperparameters.num_noises for own in levels.values())
        if train.batch_size < m:
            problems.append(f"train.batch_size is {train.batch_size}: must be >= num_noises at every level ({m})")
    return problems


def _preparation_problems(train: Train, levels: dict[str, Train]) -> list[str]:
    """Those of the methods that compute something of all images between their epochs."""
    problems = []
    if train.method in ("catrs", "sun2025") and train.processes > 1:
        problems.append(f"train.processes is {train.processes}: {train.method} trains in one process, set it to 1")
    for key, own in levels.items():
        at = f"noise_levels.{key}" if own.hyperparameters != train.hyperparameters else "train"
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
