"""Accuracy on the validation split during a training: for choosing between trainings, never for certificates."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from components.data.streaming import to_unit_interval
from components.params import Train
from components.training.draws import Draws
from components.training.optimizer import train_mode
from components.training.ranks import Ranks
from components.training.smoothing import noisy_logits


@dataclass(frozen=True)
class Validation:
    """A validation split, and one draw of noise for each of its images: the same in every epoch and every training of
    this seed, so that two accuracies differ by the networks alone."""

    pixels: Tensor
    """uint8 or uint16 (N, C, H, W) on the network's device; `pixels / max_value` is in [0, 1]."""
    labels: Tensor
    """int64 (N,), on the network's device."""
    max_value: int
    sigma: float
    settings: Train
    seed: int
    sha256: str
    """Of the split."""
    ranks: Ranks
    batch: int = 128
    """Images of one forward. The noise depends on it, so it is not that of the training, which recipes differ in."""

    @torch.no_grad()
    def noisy_accuracy(self, network: nn.Module) -> float:
        """Share of the noisy images that the network classifies correctly in eval mode. Leaves it in the mode of the
        training, and no trace in any random state."""
        device, in_bfloat16 = self.labels.device, self.settings.precision == "bfloat16"
        right = torch.zeros((), dtype=torch.float64, device=device)
        network.eval()
        with torch.random.fork_rng([device] if device.type == "cuda" else []):  # for a network that draws of its own
            for step, first in enumerate(range(0, len(self.labels), self.batch)):
                shard = self.ranks.shard_of(min(self.batch, len(self.labels) - first))
                self.ranks.turn_to(shard)
                rows = slice(first + shard.first, first + shard.last)
                images = to_unit_interval(self.pixels[rows], self.max_value)
                draws = Draws(self.seed, 0, step, device, shard, use="validation")
                with torch.autocast(device.type, torch.bfloat16, enabled=in_bfloat16, cache_enabled=False):
                    logits = noisy_logits(network, images, self.sigma * draws.normal(1, images))
                right += (logits[0].argmax(-1) == self.labels[rows]).sum().double() / self.ranks.copies
        self.ranks.add_up([right])
        train_mode(network, self.settings)
        return float(right) / len(self.labels)
