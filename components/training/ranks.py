"""One training in several processes: who they are, what they share, and batch norm over all of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from components.training.draws import Shard


class Ranks:
    """The processes that train one network, as `torchrun` started them; a single one talks to nobody."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size
        self.copies = 1
        """How often each image of the current group is there: `size` where a group is too small to be split."""

    @property
    def first(self) -> bool:
        """Whether this is the one that writes files and talks to people."""
        return self.rank == 0

    def share(self, total: int) -> Shard:
        """This process's part of a group of `total` images; all of it where there are fewer images than processes."""
        if total < self.size:
            return Shard(0, total, total)
        return Shard(total * self.rank // self.size, total * (self.rank + 1) // self.size, total)

    def turn_to(self, share: Shard) -> None:
        """Make the group of `share` the current one."""
        self.copies = self.size if share.total < self.size else 1

    def weight(self, share: Shard) -> float:
        """The part of the current group's mean that the mean over `share` stands for."""
        return (share.last - share.first) / (share.total * self.copies)

    def add_up(self, tensors: list[Tensor]) -> None:
        """Replace tensors by their sums over all processes, in one message."""
        if self.size == 1:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat)
        sums = flat.split([tensor.numel() for tensor in tensors])  # type: ignore[no-untyped-call]
        for tensor, total in zip(tensors, sums, strict=True):
            tensor.copy_(total.view(tensor.shape))

    def largest(self, value: int) -> int:
        """The largest of the processes' values: what they agree on. Does not wait for a GPU."""
        if self.size == 1:
            return value
        shared = torch.tensor(int(value))
        dist.all_reduce(shared, dist.ReduceOp.MAX)  # on the CPU, so over gloo
        return int(shared)


@contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """The processes that torchrun started together with this one; this one alone where it did not."""
    if not dist.is_torchelastic_launched():
        yield Ranks()
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


class _Sum(torch.autograd.Function):
    """The sum over all processes; the gradient of each is the sum of all gradients."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total


class SharedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm whose batch is that of all processes together, on any device (torch's own refuses CPUs).

    Saved and loaded as a BatchNorm2d.
    """

    processes: Ranks

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        values = input.to(torch.promote_types(input.dtype, torch.float32))
        count = values.new_full((1,), values.numel() / values.shape[1])
        sums = _Sum.apply(torch.cat([values.sum((0, 2, 3)), count]))
        mean, total = sums[:-1] / sums[-1], sums[-1].detach()
        centred = values - mean[:, None, None]
        variance = _Sum.apply(centred.square().sum((0, 2, 3))) / total
        self._update(mean.detach(), variance.detach(), total / self.processes.copies)
        assert self.weight is not None
        assert self.bias is not None
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(input.dtype)

    @torch.no_grad()
    def _update(self, mean: Tensor, variance: Tensor, total: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * total / (total - 1), self.momentum)
        self.num_batches_tracked += 1


def share_batch_norm(network: nn.Module, processes: Ranks) -> None:
    """Put `SharedBatchNorm2d` in the place of every batch norm of `network`, where there is more than one process.

    Before the optimiser is made: the parameters are new ones.
    """
    if processes.size == 1:
        return
    for module in list(network.modules()):
        for name, child in module.named_children():
            if type(child) is nn.BatchNorm2d:
                shared = SharedBatchNorm2d(child.num_features, child.eps, child.momentum).to(child.weight)
                shared.load_state_dict(child.state_dict())
                shared.processes = processes
                setattr(module, name, shared)
