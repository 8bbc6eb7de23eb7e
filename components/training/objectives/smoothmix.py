"""SmoothMix (Jeong et al., NeurIPS 2021): mix each image with its adversary of the smoothed classifier."""

from torch import Tensor, nn
from torch.nn import functional as F

from components.methods import SmoothMix
from components.params import Train
from components.training.attack import project, smoothed_ascent
from components.training.draws import Draws
from components.training.smoothing import divergence, noisy_logits, smoothed_probabilities, warmup_weight


def smoothmix(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    sigma: float,
    settings: Train,
    epoch: int,
    draws: Draws,
    own: SmoothMix,
) -> tuple[Tensor, Tensor]:
    """L_nat + eta * w_e * L_mix; see `Objective` for arguments and result.

    The noises are drawn once: the attack, the clean pass and the mixed pass share them.
    """
    m, warmup = own.num_noises, warmup_weight(epoch, settings)
    noise = sigma * draws.normal(m, images)

    path = smoothed_ascent(
        network, images, labels, noise, steps=own.attack_steps, step_size=own.step_size, radius=own.attack_radius
    )
    adversary, clean = path[-1], images
    if own.clean_step < own.attack_steps:
        step = project(path[own.clean_step] - images, warmup * own.step_size * own.clean_step)
        clean = (images + step).clamp(0, 1)

    # Two separate forwards: one over both would change the statistics that batch norm sees.
    logits = noisy_logits(network, clean, noise)
    smoothed = smoothed_probabilities(logits)
    natural_loss = F.cross_entropy(logits.flatten(0, 1), labels.repeat(m))

    mixing = draws.uniform(images, high=0.5)[:, None]  # lambda, one per image
    pixelwise = mixing[..., None, None]
    mixed = (1 - pixelwise) * clean + pixelwise * adversary
    target = (1 - mixing) * smoothed + mixing / smoothed.shape[-1]
    log_predicted = noisy_logits(network, mixed, noise).log_softmax(-1)
    correct = smoothed.argmax(-1) == labels
    mixed_loss = (correct * divergence(target, log_predicted)).mean()  # over all m * B, not over the correct ones

    return natural_loss + own.mix_weight * warmup * mixed_loss, logits
