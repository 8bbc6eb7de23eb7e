"""The training methods, by name. Each maps one group of images to its loss; `Objective` is what they share."""

from collections.abc import Callable
from typing import Protocol

from torch import Tensor, nn

from components.params import Train
from components.training.draws import Draws
from components.training.objectives.gaussian import gaussian
from components.training.objectives.smoothmix import smoothmix


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
        warmup: float,
        draws: Draws,
    ) -> tuple[Tensor, Tensor]:
        """Args:
            network: logits from images in [0, 1]; left in train mode.
            images: float32 (B, C, H, W) in [0, 1], without noise.
            labels: int64 (B,).
            sigma: standard deviation of the noise, in pixel units.
            warmup: w_e in (0, 1], the weight of the method's own terms in this epoch.
            draws: the step's random numbers.

        Returns:
            The loss (a float32 scalar) and the logits of the noisy images (m, B, K), from which accuracy is counted.
        """
        ...


OBJECTIVES: dict[str, Objective] = {"gaussian": gaussian, "smoothmix": smoothmix}

STEPS_PER_BATCH: dict[str, Callable[[Train], int]] = {
    "gaussian": lambda settings: 1,
    "smoothmix": lambda settings: settings.smoothmix.num_noises,
}
"""Into how many consecutive groups, each one optimiser step, a method splits a loaded batch."""
