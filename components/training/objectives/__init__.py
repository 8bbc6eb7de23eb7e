"""The training methods, by name. Each maps one group of images to its loss; `Objective` is what they share."""

from collections.abc import Callable
from typing import Protocol

from torch import Tensor, nn

from components.methods import SPLITTING_METHODS
from components.params import Train
from components.training.draws import Draws
from components.training.objectives.consistency import consistency
from components.training.objectives.gaussian import gaussian
from components.training.objectives.macer import macer
from components.training.objectives.smoothadv import smoothadv
from components.training.objectives.smoothmix import smoothmix
from components.training.objectives.stability import stability


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
    ) -> tuple[Tensor, Tensor]:
        """Args:
            network: logits from images in [0, 1]; left in train mode.
            images: float32 (B, C, H, W) in [0, 1], without noise.
            labels: int64 (B,).
            sigma: standard deviation of the noise, in pixel units.
            epoch: counted from 0; warm-up and deferral depend on it.
            draws: the step's random numbers.

        Returns:
            The loss, a float32 scalar and a mean over the images, and the logits of the noisy images (m, B, K), from
            which accuracy is counted.
        """
        ...


OBJECTIVES: dict[str, Objective] = {
    "smoothmix": smoothmix,
    "gaussian": gaussian,
    "stability": stability,
    "smoothadv": smoothadv,
    "macer": macer,
    "consistency": consistency,
}

STEPS_PER_BATCH: dict[str, Callable[[Train], int]] = {
    method: (lambda settings: settings.hyperparameters.num_noises) if method in SPLITTING_METHODS else lambda _: 1
    for method in OBJECTIVES
}
"""Number of consecutive groups, each one optimiser step, that a method splits a loaded batch into."""
