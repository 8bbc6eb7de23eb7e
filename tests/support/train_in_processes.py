"""Trains a network in as many ranks as it is started in, and saves what came out.

Usage: train_in_processes.py FOLDER, which holds job.pt: network, pixels, labels and settings.
"""

import sys
from pathlib import Path

import torch

from components.tools.device import use_device
from components.tools.world import joined
from components.training.fit import fit
from components.training.optimizer import make_optimizer
from components.training.ranks import connected, share_batch_norm
from components.training.state import Training
from tests.support.small_training import validation_on


def main(folder: Path) -> None:
    job = torch.load(folder / "job.pt", weights_only=False)
    with joined(), connected(use_device(threads=1)) as ranks:
        share_batch_norm(job["network"], ranks)
        validation = validation_on(job["data"], job["settings"], ranks=ranks)
        training = Training(job["network"], make_optimizer(job["network"], job["settings"]), validation)
        steps = fit(training, *job["data"], max_value=16, sigma=0.5, settings=job["settings"], seed=0, ranks=ranks)
        sizes = list(steps)
        if ranks.is_main:
            state = {"sizes": sizes, "weights": job["network"].state_dict(), "history": training.history}
            torch.save(state | {"processes": ranks.size}, folder / "result.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
