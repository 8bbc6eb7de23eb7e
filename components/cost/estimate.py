"""From what is measured to the time of a whole recipe, and to what changes would make of it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from components.certification.bounds import largest_radius
from components.certification.preset_radii import certifiable, last_look
from components.certification.table import display_radius
from components.cost.counts import Counts
from components.cost.measure import Speed
from components.params import Certify, Params, Train
from components.training.objectives.sun2025 import REWEIGH_EVERY, SELECTION_COPIES, WEIGHT_COPIES

PRESET_FACTOR = 24
"""Preset radii took this times the square root of n samples per image, on the digits for n from 1,000 to 100,000."""
STARTS = {"train": 3.0, "certify": 1.5, "others": 8.0}
"""What stages take besides their steps, in imports of the code that trains and certifies: as seen on the digits. A
training also opens the tracking store; the others are those of `OTHER_STAGES` together."""
OTHER_STAGES = ("prepare", "validate", "evaluate", "register")
IMAGES_LEFT = 200
"""Test images that a suggested `certify.every` leaves: certified accuracy then has a standard error of some .03."""
WORTH_SAYING = 0.95
"""A change is suggested when it leaves at most this share of the time."""


@dataclass(frozen=True)
class Estimate:
    """Seconds of each stage; train and certify by noise level."""

    train: dict[float, float]
    certify: dict[float, float]
    others: float

    @property
    def total(self) -> float:
        """One stage after another, as `dvc repro` runs them."""
        return sum(self.train.values()) + sum(self.certify.values()) + self.others


@dataclass(frozen=True)
class Measured:
    """What the arithmetic starts from: `speeds` by noise level, and the seconds that imports take (see `STARTS`)."""

    speeds: dict[float, Speed]
    start: float


def estimate(params: Params, counts: Counts, measured: Measured) -> Estimate:
    """The time of a recipe, nothing of which is done yet."""
    epochs, images = params.train.epochs, math.ceil(counts.test / params.certify.every)
    samples = samples_per_image(params.certify)

    def certify(speed: Speed) -> float:
        return images * math.ceil(samples / speed.block) * speed.block / speed.samples

    def train(sigma: float, speed: Speed) -> float:
        prepared = copies_per_image(params.train_at(sigma)) / speed.samples
        return counts.train * (epochs / speed.train_images + prepared)

    speeds, start = measured.speeds.items(), measured.start
    return Estimate(
        train={sigma: STARTS["train"] * start + train(sigma, speed) for sigma, speed in speeds},
        certify={sigma: STARTS["certify"] * start + certify(speed) for sigma, speed in speeds},
        others=STARTS["others"] * start,
    )


def copies_per_image(settings: Train) -> int:
    """How many noisy copies of each training image are classified beside the steps, at most."""
    if settings.method == "catrs":
        return settings.catrs.targets_copies
    if settings.method == "sun2025":
        decisions = max(0, math.ceil((settings.epochs - settings.sun2025.selection_epoch) / REWEIGH_EVERY))
        return decisions * WEIGHT_COPIES + (SELECTION_COPIES if decisions else 0)
    return 0


def samples_per_image(settings: Certify) -> float:
    """How many samples an image takes: of preset radii what they took elsewhere, else all."""
    preset = settings.mode == "sequential"
    return settings.n0 + (min(settings.n, PRESET_FACTOR * math.sqrt(settings.n)) if preset else settings.n)


@dataclass(frozen=True)
class Suggestion:
    """A change of params.yaml, what it costs besides time, and the time with this change alone."""

    change: str
    price: str
    estimate: Estimate


def suggestions(
    params: Params, counts: Counts, measured: Measured, smaller: tuple[str, Measured] | None = None
) -> list[Suggestion]:
    """Changes that save time, the one that saves most first.

    Args:
        smaller: the name of a smaller network, and what it was measured to do.
    """
    now = estimate(params, counts, measured).total
    found = [
        Suggestion(change, price, estimate(changed, counts, measured))
        for change, price, changed in _changes(params, counts)
    ]
    if smaller:
        name, speeds = smaller
        found.append(Suggestion(f"train.network: {name}", "a smaller network", estimate(params, counts, speeds)))
    useful = (suggestion for suggestion in found if suggestion.estimate.total <= WORTH_SAYING * now)
    return sorted(useful, key=lambda suggestion: suggestion.estimate.total)


def _changes(params: Params, counts: Counts) -> Iterator[tuple[str, str, Params]]:
    """What to write, what it costs besides time, and the parameters with it."""
    certify, train = params.certify, params.train

    def with_certify(**changes: Any) -> Params:
        return replace(params, certify=replace(certify, **changes))

    if certify.mode == "reference":
        n = last_look(certify.n)
        radii = _preset_radii(params, n)
        if radii:
            change = "certify.mode: sequential" + (f", n: {n}" if n != certify.n else "")
            price = f"answers the radii {', '.join(f'{radius:g}' for radius in radii)} alone; the time is a guess"
            yield change, price, with_certify(mode="sequential", n=n, early_abstention=False)
    fewer = certify.n // 10
    if fewer >= 1000:
        yield f"certify.n: {fewer}", f"the largest radius falls {_falls(params, fewer)}", with_certify(n=fewer)
    every = math.ceil(counts.test / IMAGES_LEFT)
    if every > certify.every:
        left = math.ceil(counts.test / every)
        yield f"certify.every: {every}", f"certifies {left} test images", with_certify(every=every)
    if train.epochs > 1:
        halves: dict[str, Any] = {"epochs": train.epochs // 2}
        if train.decay_every:
            halves["decay_every"] = max(1, train.decay_every // 2)
        change = ", ".join(f"{name}: {value}" for name, value in halves.items())
        yield f"train.{change}", "a training half as long", replace(params, train=replace(train, **halves))


def _preset_radii(params: Params, n: int) -> list[float]:
    """The preset radii, if every noise level certifies some of them with n samples."""
    settings: Any = {"failure_prob": params.certify.failure_prob, "bound": params.certify.bound}
    radii = params.certify.sequential.radii
    try:
        levels = [certifiable(radii, n, sigma=sigma, **settings) for sigma in params.sigmas]
    except ValueError:  # n is too small for any radius
        return []
    return sorted(set().union(*levels)) if all(levels) else []


def _falls(params: Params, fewer: int) -> str:
    """From which radius to which it falls with fewer samples, at the middle noise level."""
    sigma, settings = params.sigmas[len(params.sigmas) // 2], params.certify
    before, after = (
        display_radius(largest_radius(n, settings.failure_prob, sigma, settings.bound)) for n in (settings.n, fewer)
    )
    return f"from {before} to {after} at sigma {sigma}"
