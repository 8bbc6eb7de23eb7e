"""The device to compute on, and the settings that make results repeatable."""

import os

import torch


def use_device(threads: int, wanted: str = "auto") -> torch.device:
    """The GPU where there is one, else the CPU with `threads` threads per operation; deterministic algorithms on both.

    The thread count is set even where it equals the machine's: the order of a sum, and so its rounding, depends on it.
    A process that torchrun started takes the GPU of its local rank, or the only one that it sees: cluster managers may
    show each process its own GPU alone, as number 0.

    Args:
        wanted: `auto`, `cpu`, or `cuda`, which demands a GPU.

    Raises:
        ValueError: a GPU is demanded, and torch sees none.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic matrix products on a GPU need it
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    # Else every new tensor is first filled with NaN, which takes a fifth of a training step and guards against nothing
    # here: no tensor is read before it is written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    # `float32` means float32: by default cuDNN rounds the factors of convolutions to TF32, 10 bits of mantissa.
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    if wanted == "cuda" and not torch.cuda.is_available():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        raise ValueError(
            f"device is 'cuda', and torch {torch.__version__}, {built}, sees no GPU: look at what nvidia-smi says, "
            "take a torch that was built for this driver, or set device to auto"
        )
    if wanted == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)) if torch.cuda.device_count() > 1 else 0)
    return torch.device("cuda", torch.cuda.current_device())


def cores_of_this_rank() -> int:
    """This process's share of the CPU cores, if torchrun has started several processes on this machine."""
    return max(1, available_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def available_cores() -> int:
    """The CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
