"""The project's parameters as plain values, and copies with one of them changed."""

import copy
from dataclasses import asdict
from pathlib import Path

import pytest

from components import params

ROOT = Path(__file__).parents[2]
MISSING = object()


@pytest.fixture
def raw():
    """The project's parameters, with values of our own where the tests below depend on them."""
    raw = asdict(params.load(ROOT / "params.yaml"))
    raw["train"] |= {"method": "smoothmix", "batch_size": 256}
    raw["train"]["smoothmix"]["num_noises"] = 4
    raw["certify"] |= {"mode": "reference", "n0": 100, "n": 10_000, "failure_prob": 0.001, "early_abstention": False}
    return raw | {"noise_levels": {"0.5": {}}}


def changed(raw, key, value):
    """A copy with the value at a dotted key replaced or removed."""
    raw = copy.deepcopy(raw)
    *sections, name = key.split(".")
    section = raw
    for part in sections:
        section = section[part]
    if value is MISSING:
        del section[name]
    else:
        section[name] = value
    return raw
