"""The training methods' own hyper-parameters. Their defaults are the settings published for CIFAR-10.

A class with `splits_batch` belongs to a method that splits a loaded batch into `num_noises` groups, each one optimiser
step; the other methods use it whole.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from components.parsing import Count, NonNegative, Positive, Range


@dataclass(frozen=True)
class SmoothMix:
    """Jeong et al., NeurIPS 2021."""

    splits_batch: ClassVar = True

    num_noises: Count = 2
    """m: noises per image, and the number of optimiser steps that a loaded batch is split into."""
    attack_steps: Annotated[int, Range(least=0)] = 4
    """T: steps of gradient ascent."""
    step_size: Positive = 1.0
    """L2 length of one step, in pixel units (the paper's alpha)."""
    mix_weight: NonNegative = 5.0
    """eta: weight of the mixed loss."""
    clean_step: Literal[0, 1] = 1
    """s: 1 replaces the clean image by its one-step adversary."""
    attack_radius: Positive | None = None
    """Radius of an L2 ball around the image that the attack stays in; null for none."""


@dataclass(frozen=True)
class Stability:
    """Stability training: Li et al., NeurIPS 2019."""

    weight: NonNegative = 2.0
    """lambda: weight of the cross-entropy between the predictions without and with noise."""


@dataclass(frozen=True)
class SmoothAdv:
    """Salman et al., NeurIPS 2019, with their attack by projected gradient descent."""

    splits_batch: ClassVar = True

    num_noises: Count = 8
    """m: noises per image, and the number of optimiser steps that a loaded batch is split into."""
    attack_steps: Count = 10
    """T: steps of the descent, each 2/T of the radius long."""
    attack_radius: NonNegative = 1.0
    """epsilon: radius of the L2 ball around the image that the attack stays in, in pixel units."""


@dataclass(frozen=True)
class Macer:
    """Zhai et al., ICLR 2020."""

    num_noises: Count = 16
    """k: noises per image; the whole loaded batch is one optimiser step."""
    weight: NonNegative = 4.0
    """lambda: weight of the robustness loss."""
    margin: Positive = 8.0
    """gamma: an image adds to the loss only if its Phi^-1(p1) - Phi^-1(p2), which is 2 * radius / sigma, is smaller."""
    inverse_temperature: Positive = 16.0
    """beta: factor of the logits in the robustness loss; a larger one brings their softmax closer to one-hot."""
    deferred: bool = False
    """Whether the robustness loss waits until the learning rate has dropped: weight 0 up to epoch `decay_every`."""


@dataclass(frozen=True)
class Consistency:
    """Jeong & Shin, NeurIPS 2020."""

    splits_batch: ClassVar = True

    num_noises: Count = 2
    """m: noises per image, and the number of optimiser steps that a loaded batch is split into."""
    weight: NonNegative = 10.0
    """lambda: weight of the divergence of the prediction under each noise from their mean."""
    entropy_weight: NonNegative = 0.5
    """eta: weight of the entropy of the mean prediction."""
