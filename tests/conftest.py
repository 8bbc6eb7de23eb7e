"""What several test files share."""

import pytest
import torch

from components.params import Consistency, Macer, SmoothAdv, SmoothMix, Stability, Train

torch.set_num_threads(1)


@pytest.fixture
def settings():
    """A tiny training; tests change what they are about with dataclasses.replace."""
    mix = SmoothMix(num_noises=2, attack_steps=2, step_size=0.5, mix_weight=5.0, clean_step=0, attack_radius=None)
    return Train(
        method="smoothmix",
        network="small_convnet",
        epochs=2,
        batch_size=8,
        learning_rate=0.05,
        decay_every=30,
        decay_schedule="textbook",
        warmup_epochs=2,
        threads=1,
        precision="float32",
        augment="none",
        processes=1,
        smoothmix=mix,
        stability=Stability(weight=2.0),
        smoothadv=SmoothAdv(num_noises=2, attack_steps=3, attack_radius=0.5),
        macer=Macer(num_noises=4, weight=6.0, margin=8.0, inverse_temperature=16.0, deferred=False),
        consistency=Consistency(num_noises=2, weight=10.0, entropy_weight=0.5),
    )
