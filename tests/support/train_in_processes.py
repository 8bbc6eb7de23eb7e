"""Trains a network in as many processes as torchrun starts it in, and saves what came out.

Usage: train_in_processes.py FOLDER, which holds job.pt: network, pixels, labels and settings.
"""

import sys
from pathlib import Path

import torch

from components.tools.device import use_device
from components.training.fit import Training, fit, make_optimizer
from components.training.ranks import joined, share_batch_norm


def main(folder: Path) -> None:
    job = torch.load(folder / "job.pt", weights_only=False)
    with joined(use_device(threads=1)) as processes:
        share_batch_norm(job["network"], processes)
        training = Training(job["network"], make_optimizer(job["network"], job["settings"]))
        steps = fit(
            training, *job["data"], max_value=16, sigma=0.5, settings=job["settings"], seed=0, processes=processes
        )
        sizes = list(steps)
        if processes.first:
            state = {"sizes": sizes, "weights": job["network"].state_dict(), "history": training.history}
            torch.save(state | {"processes": processes.size}, folder / "result.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
