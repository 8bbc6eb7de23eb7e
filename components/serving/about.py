"""What the page says of the model that answers: its card, its results, its limits, and images to try."""

import math
from dataclasses import dataclass, field
from typing import Any

from components.certification.bounds import largest_radius
from components.certification.classifier import BOUND, SmoothedClassifier
from components.certification.noise import ARITHMETIC
from components.certification.preset_radii import FIRST_LOOK, largest_preset_radius, last_look
from components.params import smallest_n
from components.serving import shown
from components.serving.pictures import MAX_PIXELS, picture_rule

HOW = {"bound": BOUND, "arithmetic": ARITHMETIC}
"""How certificates are made; see docs/certificates.md."""
SAMPLES = (1_000, 10_000, 100_000)
"""Numbers of samples that the page offers, beside the model's own."""


@dataclass(frozen=True)
class Example:
    """An image to try."""

    name: str
    image: str
    """A data URL."""


@dataclass(frozen=True)
class About:
    """What the registry and this machine know of a model beyond its card."""

    results: dict[str, Any] = field(default_factory=dict)
    """By the registered table of certificates: acr, clean_accuracy, ...; empty where it is not known."""
    examples: list[Example] = field(default_factory=list)


NOTHING = About()


def facts(classifier: SmoothedClassifier, about: About, picture_bytes: int) -> dict[str, Any]:
    """The answer of /card.

    Args:
        picture_bytes: the limit of one picture.
    """
    card = classifier.card
    return {
        "model": classifier.origin.name,
        "version": classifier.origin.version,
        "sigma": card.sigma,
        "classes": card.classes,
        "image_shape": card.image_shape,
        "grid": card.grid,
        "network": card.network,
        "precision": card.precision,
        "method": card.training.get("method", ""),
        "weights_sha256": card.weights_sha256,
        **HOW,
        "n": classifier.n,
        "failure_prob": classifier.failure_prob,
        "samples": [samples(classifier, n) for n in sorted({*SAMPLES, classifier.n}) if is_possible(classifier, n)],
        "pictures": picture_rule(card),
        "limits": {
            "images": classifier.limits.images,
            "n": classifier.limits.n,
            "seconds": classifier.limits.seconds,
            "picture_bytes": picture_bytes,
            "pixels": MAX_PIXELS,
            "show": shown.MOST,
        },
        "results": about.results,
    }


def is_possible(classifier: SmoothedClassifier, n: int) -> bool:
    return max(FIRST_LOOK, smallest_n(classifier.failure_prob, BOUND)) <= n <= classifier.limits.n


def samples(classifier: SmoothedClassifier, n: int) -> dict[str, Any]:
    """What n samples can certify at most, with all in one class: without and with a preset radius (rounded down)."""
    sigma, failure_prob = classifier.card.sigma, classifier.failure_prob
    try:
        preset = largest_preset_radius(last_look(n), failure_prob, sigma, BOUND)
    except ValueError:  # too few samples for any
        preset = 0.0
    return {
        "n": n,
        "largest_radius": largest_radius(n, failure_prob, sigma, BOUND),
        "largest_preset_radius": math.floor(preset * 1000) / 1000,
    }
