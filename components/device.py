"""Where the computing happens, and what makes it repeatable."""

import os

import torch


def use_device(threads: int) -> torch.device:
    """The GPU where there is one, else the CPU with `threads` threads per operation; deterministic algorithms on both.

    The thread count is set even where it equals the machine's: the order of a sum, and so its rounding, depends on it.
    """
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def available_cores() -> int:
    """The CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
