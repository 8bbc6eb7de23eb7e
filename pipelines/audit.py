"""Try a registered model's table of certificates: its files, its arithmetic, and a sample of its rows with fresh noise.

Exit code 0: the table stands; 1: it does not, or could not be tried.
"""

import argparse
import secrets
import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor

from components.certification.classifier import SmoothedClassifier
from components.certification.cohen import certify_images
from components.certification.table import display_radius
from components.data.prepared import load_description
from components.data.streaming import open_split, to_unit_interval
from components.evaluation.audit import (
    claimed_probability,
    contradictions_needed,
    inconsistent_rows,
    is_contradicted,
)
from components.evaluation.verdict import Certified
from components.params import load as load_params
from components.registry.loading import load_classifier
from components.registry.model_files import find_version
from components.registry.tables import run_table
from components.registry.tracking import CONTENT, use_store
from components.tools.device import available_cores
from pipelines import artifacts


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.audit", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--model", required=True, help="models:/<name>@<alias> or models:/<name>/<version>")
    parser.add_argument("--images", type=int, default=50, help="rows to try with fresh noise")
    parser.add_argument("--n", type=int, default=10_000, help="fresh samples per row")
    parser.add_argument(
        "--false-alarm", type=float, default=0.001, help="probability at most that an honest table is said to fall"
    )
    options = parser.parse_args()
    try:
        use_store(artifacts.tracking_store())
        findings = audit(options.model, options.images, options.n, options.false_alarm)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    print(f"{options.model}: the table {'DOES NOT STAND: ' + '; '.join(findings) if findings else 'stands'}")
    sys.exit(1 if findings else 0)


def audit(uri: str, images: int, n: int, false_alarm: float) -> list[str]:
    """What speaks against the table; nothing where it stands."""
    classifier = load_classifier(uri)
    version = find_version(uri)
    certified = run_table(version)
    if certified is None:
        raise ValueError(f"the run of {uri} holds no table of certificates: run the register stage again")
    findings = []
    if certified.table.attrs["content"] != version.tags.get(CONTENT):
        findings.append("table.tsv is not the file that was registered with these weights")
    facts = {"weights_sha256": classifier.card.weights_sha256, "sigma": classifier.card.sigma}
    findings += [f"its identity says another {name}" for name in facts if certified.identity[name] != facts[name]]
    if wrong := inconsistent_rows(certified.table, certified.identity):
        findings.append(f"{len(wrong)} rows claim more than their counts give (images {named(wrong)})")
    return findings + fresh_trial(classifier, certified, images, n, false_alarm)


def fresh_trial(classifier: SmoothedClassifier, certified: Certified, images: int, n: int, alarm: float) -> list[str]:
    """What fresh noise says of rows drawn at random, those that abstain too."""
    sigma, failure_prob = classifier.card.sigma, certified.identity["failure_prob"]
    seed = secrets.randbits(63)
    drawn = certified.table.sample(min(images, len(certified.table)), random_state=np.random.default_rng(seed))
    counts = fresh_counts(classifier, certified.identity, drawn["idx"].tolist(), n, seed)
    contradicted = []
    for row in drawn.to_dict("records"):
        claimed = claimed_probability(row["predict"], row["p_lower"], row["radius"], sigma)
        hits = int(counts[row["idx"]][row["predict"]])
        if claimed and is_contradicted(hits, n, claimed, failure_prob):
            contradicted.append(int(row["idx"]))
            print(
                f"image {row['idx']}: class {row['predict']} at radius {display_radius(row['radius'])} needs at least "
                f"{claimed:.4f} of the samples, has {hits} of {n}"
            )
    needed = contradictions_needed(len(drawn), failure_prob, alarm)
    print(
        f"{len(drawn)} of {len(certified.table)} rows at failure_prob {failure_prob:g} tried, n = {n}, seed {seed}: "
        f"{len(contradicted)} contradicted; an honest table has {needed} or more with probability at most {alarm:g}"
    )
    return [f"fresh noise contradicts {len(contradicted)} rows"] if len(contradicted) >= needed else []


def fresh_counts(
    classifier: SmoothedClassifier, identity: dict[str, Any], indices: list[int], n: int, seed: int
) -> dict[int, np.ndarray]:
    """How often each class wins among `n` fresh samples of each test image."""
    description = load_description(artifacts.DESCRIPTION)
    if description.test_sha256 != identity["images_sha256"]:
        raise ValueError(f"{artifacts.TEST_SPLIT} has other images than the table is of: prepare those data")
    split = open_split(artifacts.TEST_SPLIT, artifacts.source_root(load_params(artifacts.PARAMS).prepare.root))
    images = ((i, to_unit_interval(torch.from_numpy(split.image(i)), description.max_value)) for i in indices)

    def count(image: Tensor, index: int) -> np.ndarray:
        return classifier.sampler.stream(image, seed=seed, index=index).count(n)

    workers = 1 if classifier.sampler.device.type == "cuda" else available_cores()
    return dict(certify_images(images, count, workers=workers))


def named(indices: list[int], most: int = 5) -> str:
    return ", ".join(map(str, indices[:most])) + (", ..." if len(indices) > most else "")


if __name__ == "__main__":
    main()
