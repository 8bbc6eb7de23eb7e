"""What several test files share."""

import gc
import gzip
import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import components.registry  # noqa: F401  # sets MLflow's variables, as commands do before MLflow is imported
from components.methods import Consistency, Macer, SmoothAdv, SmoothMix, Stability
from components.params import Train
from tests.support import warm_start

gc.disable()  # until all is imported


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # by `nohup ... &`, and then all that tests start ignores it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not hasattr(config, "workerinput"):  # workers share the server of the process that starts them
        config.add_cleanup(warm_start.start_server())


def pytest_collection_finish() -> None:
    """What the libraries hold stays: else each collection, which statsmodels asks for too, looks through it all."""
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # else bindings report at the end that their functions were never freed


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    import torch  # not for the process that only starts workers

    torch.set_num_threads(1)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A file whose tests are all left out is not imported either: imports are a quarter of what quick tests take."""
    if collection_path.suffix != ".py" or "not medium" not in config.option.markexpr:
        return None
    return bool(re.search(r"^pytestmark = .*mark\.medium", collection_path.read_text(encoding="utf-8"), re.M)) or None


LONGEST = ("test_pipeline.py", "test_train_stage.py", "test_preset_soundness.py", "test_two_class_soundness.py")
"""Files that start first: none is left for one process at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(scope="module", autouse=True)
def tracking_of_its_own() -> Iterator[None]:
    """The store that a file's tests point MLflow to is not that of the next file."""
    yield
    if mlflow := sys.modules.get("mlflow"):  # not imported for this
        mlflow.set_tracking_uri(None)


@pytest.fixture(scope="session")
def published() -> Path:
    """The folder of published data."""
    if "SMOOTHMIX_DATA" not in os.environ:
        pytest.skip("set SMOOTHMIX_DATA to a folder with mnist/*.gz or MNIST/raw, and cifar-10-batches-py, to use them")
    return Path(os.environ["SMOOTHMIX_DATA"])


@pytest.fixture(scope="session")
def mnist_files(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the four files of MNIST in MNIST/raw."""
    root = tmp_path_factory.mktemp("mnist")
    raw = root / "MNIST/raw"
    raw.mkdir(parents=True)
    for packed in (published / "mnist").glob("*.gz"):
        (raw / packed.stem).write_bytes(gzip.decompress(packed.read_bytes()))
    for plain in (published / "MNIST/raw").glob("*-ubyte"):
        shutil.copy(plain, raw)
    if not list(raw.iterdir()):
        pytest.skip("SMOOTHMIX_DATA has no MNIST")
    return root


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
