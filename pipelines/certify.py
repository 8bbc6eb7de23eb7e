"""Certify the test images at one noise level; continues where an interrupted run of the same certification stopped."""

from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import numpy as np

from components import trained_model
from components.certification import table
from components.certification.certify import certify_images
from components.certification.noise import CHUNK
from components.certification.sampling import BLOCK
from components.data.prepared import Description, load_description, load_split
from components.device import available_cores, use_device
from components.files import write_json
from components.identity import derive_seed, hash_value
from components.model_card import ModelCard
from components.params import Params
from components.progress import Progress
from pipelines import artifacts
from pipelines.command import run_stage_at_sigma


def run(params: Params, sigma: float) -> None:
    settings, description = params.certify, load_description(artifacts.DESCRIPTION)
    device = use_device(threads=1)  # images run side by side instead, which changes no result
    network, card = trained_model.load(artifacts.model(sigma), device)
    check_fit(card, description, sigma)
    split = load_split(artifacts.TEST_SPLIT)
    indices = range(0, len(split.labels), settings.every)

    identity = table_identity(params, card, description, device.type)
    rows = table.PartialTable(artifacts.partial_tables(hash_value(identity)), identity)
    missing = [index for index in indices if index not in rows.lines]
    scores = [table.score(rows.lines[index]) for index in indices if index in rows.lines]
    with Progress(f"certify σ={sigma}", len(indices), "images", done=len(indices) - len(missing)) as progress:
        certificates = certify_images(
            network,
            split.images,
            missing,
            sigma,
            max_value=description.max_value,
            num_classes=len(card.classes),
            settings=settings,
            seed=identity["seed"],
            workers=1 if device.type == "cuda" else available_cores(),
        )
        for index, certificate in certificates:
            line = table.format_row(index, int(split.labels[index]), certificate, settings.n0, settings.n)
            rows.append(index, line)
            scores.append(table.score(line))
            progress.advance(note=f"ACR so far {table.display_radius(float(np.mean(scores)))}")
    rows.close()
    table.write(artifacts.certificates(sigma), (rows.lines[index] for index in indices))
    write_json(artifacts.certificates_identity(sigma), identity)


def check_fit(card: ModelCard, description: Description, sigma: float) -> None:
    """Refuse weights that were trained for other data or another sigma."""
    if card.sigma != sigma:
        raise ValueError(f"{artifacts.model(sigma)} was trained at sigma {card.sigma}, not {sigma}: train it again")
    if (card.image_shape, card.classes) != (description.image_shape, description.classes):
        raise ValueError(f"{artifacts.model(sigma)} was trained on other image shapes or classes: train it again")


def table_identity(params: Params, card: ModelCard, description: Description, device: str) -> dict[str, Any]:
    """All that a row of the table is a function of, besides the image's number."""
    procedure = {name: value for name, value in asdict(params.certify).items() if name != "every"}
    return {
        "procedure": "reference",
        "sigma": card.sigma,
        **procedure,
        "seed": derive_seed(params.seed, "certify", str(card.sigma)),
        "weights_sha256": card.weights_sha256,
        "precision": card.precision,
        "images_sha256": description.test_sha256,
        "device": device,
        "torch": version("torch"),
        "numpy": version("numpy"),
        "block": BLOCK,
        "chunk": CHUNK,
    }


if __name__ == "__main__":
    run_stage_at_sigma(run, __doc__)
