"""Fine-tuning against training from scratch, on few images and in the same number of steps.

A network learns the digits 0 to 5 on the first 50,000 images of MNIST. Its weights, but for the last layer, then start
the training for the digits 6 to 9 on 2,000 other images; beside it, the same training from new weights. Both see the
same images in the same order, so a step costs both the same, and both are tried with the same learning rates.
"""

import argparse
import itertools
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.workspace import ROOT, run_in, write_params
from components.certification import table
from components.data.prepared import prepare, save_description, save_split
from components.data.sources.published import mnist
from components.data.sources.source import Source
from components.evaluation.metrics import summarize
from components.evaluation.report import acr_cell, text_table
from components.parsing import read_yaml
from components.tools.files import read_json
from pipelines import artifacts

SIGMA = 0.5
RATES = (0.01, 0.03, 0.1)
KNOWN, NEW = list(range(6)), list(range(6, 10))
TRAIN: dict[str, Any] = {"method": "gaussian", "network": "lenet", "threads": 1}
TRAIN |= {"batch_size": 64, "decay_schedule": "cosine"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder that has MNIST/raw")
    parser.add_argument("--out", type=Path, required=True, help="folder for the trainings and tables")
    parser.add_argument("--images", type=int, default=400, help="test images to certify (default: %(default)s)")
    parser.add_argument("--n", type=int, default=2_000, help="samples per image (default: %(default)s)")
    parser.add_argument("--epochs", type=int, nargs="+", default=[1, 2, 5], help="default: 1 2 5")
    options = parser.parse_args()
    source, every = mnist(options.root, download=False), options.images
    before = workspace(options.out / "pretraining", source, range(50_000), KNOWN, 50_000, every)
    trained(before, {"epochs": 1, "learning_rate": 0.02}, certify={"n": options.n})
    weights = str((before / artifacts.model(SIGMA)).resolve())
    rows = []
    for epochs in options.epochs:
        for start, rate in itertools.product(("new", "pretrained"), RATES):
            folder = options.out / f"{start}-{rate}-{epochs}"
            workspace(folder, source, range(50_000, 60_000), NEW, 2_000, every)
            own = {"epochs": epochs, "learning_rate": rate, "weights": weights if start == "pretrained" else None}
            seconds = trained(folder, own, certify={"n": options.n})
            run_in(folder, "certify", "--sigma", str(SIGMA))
            rows.append([start, str(rate), str(epochs), f"{seconds:.0f} s", *figures(folder)])
    header = ["weights", "learning rate", "epochs", "training", "clean acc", "ACR", "r=0.5", "r=1.0"]
    print(text_table(header, rows))


def workspace(folder: Path, source: Source, rows: range, digits: list[int], most: int, images: int) -> Path:
    """A folder with the first `most` of some rows of MNIST that show some digits, and the first test images of them."""
    assert source.test
    train, test = (source.images[rows], source.labels[rows]), source.test
    (images_of, labels_of), (test_images, test_labels) = (
        (pixels[chosen], np.searchsorted(digits, labels[chosen]))
        for pixels, labels, most_of in ((*train, most), (*test, images))
        for chosen in [np.flatnonzero(np.isin(labels, digits))[:most_of]]
    )
    own = Source(
        images=images_of,
        labels=labels_of,
        classes=[str(digit) for digit in digits],
        max_value=255,
        origin="MNIST",
        test=(test_images, test_labels),
    )
    *splits, description = prepare(own, "mnist", test_share=None, enlarge=None, seed=0)
    for split, path in zip(splits, (artifacts.TRAIN_SPLIT, artifacts.TEST_SPLIT), strict=True):
        save_split(split, folder / path)
    save_description(description, folder / artifacts.DESCRIPTION)
    return folder


def trained(folder: Path, train: dict[str, Any], certify: dict[str, Any]) -> float:
    """Train in a workspace; returns the seconds of its epochs."""
    raw = read_yaml(ROOT / "recipes/mnist.yaml") | {"noise_levels": {str(SIGMA): {}}}
    raw["train"] = TRAIN | train
    raw["certify"] |= certify | {"bound": "two_class", "compile": False}
    write_params(folder, raw)
    run_in(folder, "train", "--sigma", str(SIGMA))
    lines = (folder / artifacts.history(SIGMA)).read_text(encoding="utf-8").splitlines()
    return sum(float(line.rpartition(",")[2]) for line in lines[1:])


def figures(folder: Path) -> list[str]:
    """The cells of a table of certificates."""
    identity = read_json(folder / artifacts.certificates_identity(SIGMA), "")
    summary = summarize(table.read(folder / artifacts.certificates(SIGMA)), [0.5, 1.0], identity)
    at = summary["certified_accuracy"]
    return [
        f"{summary['clean_accuracy']:.3f}",
        acr_cell(summary, "two_class"),
        *(f"{value['value']:.3f}" for value in at.values()),
    ]


if __name__ == "__main__":
    start = time.perf_counter()
    main()
    print(f"all of it took {time.perf_counter() - start:.0f} s")
