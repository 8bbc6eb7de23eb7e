"""The training methods, by name. Each maps one group of images to its loss; `Objective` is what they share."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn

from components.params import Train
from components.training.draws import Draws
from components.training.objectives.catrs import catrs, targets
from components.training.objectives.consistency import consistency
from components.training.objectives.gaussian import gaussian
from components.training.objectives.macer import macer
from components.training.objectives.own import resolved
from components.training.objectives.smoothadv import smoothadv
from components.training.objectives.smoothmix import smoothmix
from components.training.objectives.stability import stability
from components.training.objectives.sun2025 import selection, sun2025
from components.training.preparation import Preparation


class Objective(Protocol):
    """The loss of one optimiser step."""

    def __call__(
        self,
        network: nn.Module,
        images: Tensor,
        labels: Tensor,
        *,
        sigma: float,
        settings: Train,
        epoch: int,
        draws: Draws,
        own: Any,
    ) -> tuple[Tensor, Tensor]:
        """Args:
            network: logits from images in [0, 1]; left in train mode.
            images: float32 (B, C, H, W) in [0, 1], without noise.
            labels: int64 (B,).
            sigma: standard deviation of the noise, in pixel units.
            epoch: counted from 0; warm-up and deferral depend on it.
            draws: the step's random numbers.
            own: the method's hyper-parameters, of the dataclass that this keyword is annotated with.

        Returns:
            The loss, a float32 scalar and a mean over the images, and the logits of the noisy images (m, B, K), from
            which accuracy is counted.
        """
        ...


PreparedObjective = Callable[..., tuple[Tensor, Tensor]]
"""An `Objective` of a method in `PREPARATIONS`: it also gets `per_image`, the step's rows of what that has found."""

OBJECTIVES: dict[str, Objective | PreparedObjective] = {
    "smoothmix": smoothmix,
    "gaussian": gaussian,
    "stability": stability,
    "smoothadv": smoothadv,
    "macer": macer,
    "consistency": consistency,
    "catrs": catrs,
    "sun2025": sun2025,
}
PREPARATIONS: dict[str, Preparation] = {"catrs": targets, "sun2025": selection}
"""What some methods compute of every training image before an epoch."""


class Method(NamedTuple):
    """A method with its hyper-parameters."""

    objective: Objective | PreparedObjective
    own: Any
    steps_per_batch: int
    """Number of consecutive groups, each one optimiser step, that it splits a loaded batch into."""
    prepare: Preparation | None = None
    """What it computes of every training image before an epoch."""

    def loss(
        self, per_image: dict[str, Tensor], **known: Any
    ) -> Callable[[nn.Module, Tensor, Tensor], tuple[Tensor, Tensor]]:
        """The objective of one step, as a function of network, images and labels; `known` are the other arguments, and
        `per_image` is the step's rows of what `prepare` has found."""
        if self.prepare:
            known["per_image"] = per_image
        return partial(self.objective, **known, own=self.own)


def method_of(settings: Train) -> Method:
    """The selected method, ours or the user's own.

    Raises:
        ValueError: an own method or its hyper-parameters are not as they must be.
    """
    if settings.method in OBJECTIVES:
        objective, own = OBJECTIVES[settings.method], settings.hyperparameters
    else:
        objective, own = resolved(settings)
    groups = own.num_noises if getattr(own, "splits_batch", False) else 1
    return Method(objective, own, groups, PREPARATIONS.get(settings.method))
