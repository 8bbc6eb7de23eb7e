"""Denoised smoothing: a denoiser in front of a classifier that has never seen noise (Salman et al., NeurIPS 2020).

`build` is the network, for `train.network: examples.denoised:build`. As a command, this trains both on the prepared
images and writes their weights, for `train.weights` with `train.epochs: 0`:

    python -m examples.denoised --sigma 0.5 --out data/raw/denoised-0.5.pt

The denoiser takes one step: noisy images in, clean ones out. It learns to restore the pixels, and that the classifier
answers as for the clean image (stability). The classifier stays as it was.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.data.prepared import load_description, load_split
from components.data.streaming import as_tensor, to_unit_interval
from components.model import networks
from pipelines import artifacts

CLASSIFIER = "small_convnet"
WIDTH = 32
STABILITY = 0.1
"""Weight of the stability beside the squared error of the pixels."""


class Denoised(nn.Module):
    """A classifier of denoised images."""

    def __init__(self, denoiser: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.denoiser, self.classifier = denoiser, classifier

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(images - self.denoiser(images))
        return logits


def build(image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Logits of images (B, C, H, W) with even sides. The denoiser predicts the noise, on half of the resolution."""
    folded = 4 * image_shape[0]
    denoiser = nn.Sequential(
        nn.PixelUnshuffle(2),
        nn.Conv2d(folded, WIDTH, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(WIDTH, folded, 3, padding=1),
        nn.PixelShuffle(2),
    )
    return Denoised(denoiser, networks.build(CLASSIFIER, image_shape, num_classes))


def train_classifier(classifier: nn.Module, images: Tensor, labels: Tensor, epochs: int) -> None:
    """Cross-entropy on images without noise."""
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=2e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(images)).split(64):  # type: ignore[no-untyped-call]
            optimizer.zero_grad()
            F.cross_entropy(classifier(images[rows]), labels[rows]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()


def train_denoiser(network: Denoised, images: Tensor, sigma: float, epochs: int) -> float:
    """Train the denoiser in front of the frozen classifier; returns the last epoch's mean squared error per pixel."""
    network.classifier.requires_grad_(False).eval()
    optimizer = torch.optim.AdamW(network.denoiser.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    with torch.no_grad():
        clean_answers = network.classifier(images).softmax(-1)
    errors: list[Tensor] = []
    for _ in range(epochs):
        errors.clear()
        for rows in torch.randperm(len(images)).split(64):  # type: ignore[no-untyped-call]
            noise = sigma * torch.randn_like(images[rows])
            denoised = images[rows] + noise - network.denoiser(images[rows] + noise)
            error = F.mse_loss(denoised, images[rows])
            stability = F.cross_entropy(network.classifier(denoised), clean_answers[rows])
            optimizer.zero_grad()
            (error + STABILITY * stability).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            errors.append(error.detach())
        schedule.step()
    return float(torch.stack(errors).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sigma", type=float, required=True, help="the noise that the denoiser learns to remove")
    parser.add_argument("--out", type=Path, required=True, help="file for the weights")
    parser.add_argument("--epochs", type=int, default=60, help="of the denoiser (default: %(default)s)")
    options = parser.parse_args()
    description, split = load_description(artifacts.DESCRIPTION), load_split(artifacts.TRAIN_SPLIT)
    images = to_unit_interval(as_tensor(split.images), description.max_value)
    labels = torch.from_numpy(split.labels)
    torch.manual_seed(0)
    torch.set_num_threads(1)  # small layers gain nothing from more
    channels, height, width = description.image_shape
    network = build((channels, height, width), len(description.classes))
    assert isinstance(network, Denoised)
    train_classifier(network.classifier, images, labels, epochs=30)
    error = train_denoiser(network, images, options.sigma, options.epochs)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), options.out)
    plain = options.out.with_name(f"{options.out.stem}-plain.pt")
    torch.save(network.classifier.state_dict(), plain)
    print(f"{options.out}: mean squared error {error:.4f} per pixel, that of the noise is {options.sigma**2:.4f}")
    print(f"{plain}: the classifier alone, a {CLASSIFIER}")


if __name__ == "__main__":
    main()
