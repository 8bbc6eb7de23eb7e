"""The procedures by name: from the settings of the certify stage to what certifies an image and writes its row."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from components.certification import preset_radii, table
from components.certification.cohen import certify_image
from components.certification.sampling import Sampler
from components.certification.table import Certificate, display_radius
from components.params import Certify


@dataclass(frozen=True)
class Procedure:
    """How an image is certified, and what its row then is a function of."""

    certify: Callable[[Tensor, int, str | None], Any]
    """Of an image, its number and the row that the same procedure gave it with fewer samples, if any."""
    format_row: Callable[[int, int, Any], str]
    columns: list[str]
    facts: dict[str, Any]
    watched_radius: float
    """At which progress shows certified accuracy."""


def reference(sampler: Sampler, settings: Certify, seed: int) -> Procedure:
    arguments: dict[str, Any] = {"n0": settings.n0, "n": settings.n, "failure_prob": settings.failure_prob}
    arguments["early_abstention"] = settings.early_abstention

    def certify(image: Tensor, index: int, earlier: str | None) -> Certificate:
        return certify_image(sampler, image, **arguments, seed=seed, index=index)

    return Procedure(certify, table.format_row, table.COLUMNS, {"mode": "reference", **arguments}, sampler.sigma)


def preset(sampler: Sampler, settings: Certify, seed: int) -> Procedure:
    preset_radii.check_size(settings.n)
    radii = preset_radii.certifiable(settings.sequential.radii, settings.n, settings.failure_prob, sampler.sigma)
    if left_out := [radius for radius in settings.sequential.radii if radius not in radii]:
        largest = display_radius(preset_radii.largest_preset_radius(settings.n, settings.failure_prob, sampler.sigma))
        what = f"{settings.n:,} samples certify at most {largest} at sigma {sampler.sigma}"
        if not radii:
            raise ValueError(f"certify.sequential.radii is {left_out}: {what}; name smaller ones or raise certify.n")
        print(f"left out of the radii: {', '.join(map(str, left_out))} ({what})")
    shared: dict[str, Any] = {"n0": settings.n0, "failure_prob": settings.failure_prob}
    shared["reject_prob"] = settings.sequential.reject_prob

    def certify(image: Tensor, index: int, earlier: str | None) -> preset_radii.RadiiCertificate:
        before = preset_radii.parse_row(earlier, radii) if earlier else None
        return preset_radii.certify_radii(
            sampler,
            image,
            radii,
            **shared,
            max_n=settings.n,
            seed=seed,
            index=index,
            earlier=before,
        )

    facts = {"mode": "sequential", **shared, "n": settings.n, "radii": radii}
    return Procedure(certify, preset_radii.format_row, preset_radii.COLUMNS, facts, radii[0])


PROCEDURES = {"reference": reference, "sequential": preset}
