"""The training methods' own hyper-parameters. Their defaults are the settings published for CIFAR-10.

A class with `splits_batch` belongs to a method that splits a loaded batch into `num_noises` groups, each one optimiser
step; the other methods use it whole.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from components.parsing import Count, NonNegative, Positive, Range, Share


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


@dataclass(frozen=True)
class Catrs:
    """CAT-RS: Jeong, Kim & Shin, AAAI 2023."""

    splits_batch: ClassVar = True

    num_noises: Count = 4
    """M: noises per image, and the number of optimiser steps that a loaded batch is split into."""
    attack_steps: Count = 4
    """T: steps of the ascent, each 2/T of the radius long."""
    attack_radius: NonNegative = 1.0
    """epsilon: radius of the L2 ball around the noise, in pixel units."""
    weight: NonNegative = 1.0
    """lambda: weight of the loss at the hardest noise, of images that are always classified right."""
    targets: str | None = None
    """A model of Gaussian training, on the same images and with the same network: a model folder, or a file of weights.
    Its answers under noise are what the hardest noise is led away from. A relative path starts at the main checkout."""
    targets_sigma: Positive = 0.25
    """The sigma that this model was trained at, and is asked at; the same for every noise level."""
    targets_copies: Count = 10_000
    """Noisy copies of each training image that it is asked for, once before the training."""


@dataclass(frozen=True)
class Sun2025:
    """Sun et al., ICML 2025, "Average Certified Radius is a Poor Metric".

    Its authors made it to show that the average certified radius can be gamed: hard images are given up. On CIFAR-10 at
    sigma 1.0 its clean accuracy is .420 where Gaussian training has .509.
    """

    splits_batch: ClassVar = True

    num_noises: Count = 4
    """M: noises per image, and the number of optimiser steps that a loaded batch is split into."""
    selection_epoch: Annotated[int, Range(least=0)] = 70
    """E: the epoch before which hard images are left out for good; from then on the noise is adversarial, and every 10
    epochs it is decided how often each image is drawn."""
    least_share: Share = 0.4
    """p_t: an image is kept if it is classified right under at least this share of the noise."""
    attack_steps: Annotated[int, Range(least=0)] = 6
    """T: steps of the ascent of each noise that is still classified right."""
    step_size: Positive = 0.25
    """L2 length of one step, in pixel units, before the noise gets its length back."""
