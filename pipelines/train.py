"""Train at one noise level; continues from the newest checkpoint of the same parameters, data and code."""

from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import pandas as pd
import torch

from components import networks, trained_model
from components.data.prepared import Description, load_description, load_split
from components.device import use_device
from components.files import write_json, write_text
from components.identity import derive_seed, hash_code, hash_value
from components.params import METHOD_SECTIONS, Params, Train
from components.progress import Progress
from components.provenance import provenance
from components.registry.live import LiveHistory
from components.training import checkpoint
from components.training.fit import EpochStats, fit, make_optimizer
from pipelines import artifacts
from pipelines.command import run_stage_at_sigma

PRECISION = "float32"


def run(params: Params, sigma: float) -> None:
    settings, description = params.train_at(sigma), load_description(artifacts.DESCRIPTION)
    facts = training_facts(params, sigma, settings, description)
    key = hash_value(facts)
    history = train(params, sigma, settings, description, facts, key)
    write_text(artifacts.history(sigma), pd.DataFrame(map(asdict, history)).to_csv(index=False))
    write_json(artifacts.provenance(sigma), provenance())


def training_facts(params: Params, sigma: float, settings: Train, description: Description) -> dict[str, Any]:
    """All that the weights are a function of; its hash is the training's key."""
    common = asdict(settings)
    sections = {method: common.pop(method) for method in METHOD_SECTIONS}
    own = {f"{settings.method}.{name}": value for name, value in sections.get(settings.method, {}).items()}
    return {
        "sigma": sigma,
        **common,
        **own,
        "seed": params.seed,
        "precision": PRECISION,
        "device": use_device(settings.threads).type,
        "torch": version("torch"),
        "data_sha256": description.sha256,
        "code_sha256": hash_code(artifacts.TRAINING_CODE),
    }


def train(
    params: Params, sigma: float, settings: Train, description: Description, facts: dict[str, Any], key: str
) -> list[EpochStats]:
    """Train, checkpoint and write weights and card; the history of all epochs."""
    device = use_device(settings.threads)
    channels, height, width = description.image_shape
    torch.manual_seed(derive_seed(params.seed, "weights"))
    network = networks.build(
        settings.network, (channels, height, width), len(description.classes), description.mean, description.std
    ).to(device)
    optimizer = make_optimizer(network, settings)
    history: list[EpochStats] = []
    folder = artifacts.checkpoints(key)
    if state := checkpoint.load_newest(folder, device):
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        history = [EpochStats(**row) for row in state["history"]]
        print(f"continuing after epoch {len(history)} of {settings.epochs} from {folder}")

    split = load_split(artifacts.TRAIN_SPLIT)
    pixels, labels = torch.from_numpy(split.images).to(device), torch.from_numpy(split.labels).to(device)
    per_epoch = len(labels)
    with (
        Progress(f"train σ={sigma}", settings.epochs * per_epoch, "images", len(history) * per_epoch) as progress,
        LiveHistory(artifacts.tracking_store(), params.register.name, key, facts) as live,
    ):
        epochs = fit(
            network,
            optimizer,
            pixels,
            labels,
            max_value=description.max_value,
            sigma=sigma,
            settings=settings,
            seed=params.seed,
            first_epoch=len(history),
        )
        for stats in epochs:
            history.append(stats)
            state = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
            checkpoint.save(folder, len(history), state | {"history": [asdict(row) for row in history]})
            live.log(stats)
            progress.advance(per_epoch, f"loss {stats.loss:.3f}, accuracy under noise {stats.noisy_accuracy:.3f}")

    trained_model.save(
        network,
        artifacts.model(sigma),
        sigma=sigma,
        network=settings.network,
        precision=PRECISION,
        image_shape=description.image_shape,
        classes=description.classes,
        mean=description.mean,
        std=description.std,
        training_key=key,
        training=facts,
        data_sha256=description.sha256,
    )
    return history


if __name__ == "__main__":
    run_stage_at_sigma(run, __doc__)
