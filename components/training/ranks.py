"""One training in several processes: who they are, what they add up, and batch norm over all of them.

A step of several processes is that of one process within rounding. Rounding grows from step to step as in any training:
after 60 epochs on two machines the weights differ from those of one process by some 5e-2.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from components.tools import world
from components.tools.roll_call import connect
from components.tools.world import World
from components.training.draws import Shard


class Ranks:
    """The processes that train one network, as `torchrun` started them; a single one talks to nobody."""

    def __init__(self, rank: int = 0, size: int = 1, world: World | None = None) -> None:
        """Args:
        world: in which they have found each other, where they are more than one.
        """
        self.rank, self.size, self.world = rank, size, world or World()
        self.copies = 1
        """How often each image of the current group is there: `size` where a group is too small to be split."""

    @property
    def is_main(self) -> bool:
        """Whether this is the one that writes files and talks to people."""
        return self.rank == 0

    def shard_of(self, total: int) -> Shard:
        """This process's part of a group of `total` images; all of it where there are fewer images than processes."""
        if total < self.size:
            return Shard(0, total, total)
        return Shard(total * self.rank // self.size, total * (self.rank + 1) // self.size, total)

    def turn_to(self, shard: Shard) -> None:
        """Make the group of `shard` the current one."""
        self.copies = self.size if shard.total < self.size else 1

    def weight(self, shard: Shard) -> float:
        """The part of the current group's mean that the mean over `shard` stands for."""
        return (shard.last - shard.first) / (shard.total * self.copies)

    def add_up(self, tensors: list[Tensor]) -> None:
        """Replace tensors by their sums over all processes, in one message."""
        if self.size == 1:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        _all_reduce(flat)
        sums = flat.split([tensor.numel() for tensor in tensors])  # type: ignore[no-untyped-call]
        for tensor, total in zip(tensors, sums, strict=True):
            tensor.copy_(total.view(tensor.shape))

    def largest(self, value: int) -> int:
        """The largest of the processes' values: what they agree on. Does not wait for a GPU."""
        if self.size == 1:
            return value
        shared = torch.tensor(int(value))
        _all_reduce(shared, dist.ReduceOp.MAX)  # on the CPU, so over gloo
        return int(shared)


@contextmanager
def connected(device: torch.device) -> Iterator[Ranks]:
    """The ranks of the world that this process has joined, able to add up tensors; this one alone outside of one."""
    joined = world.current()
    if joined.size == 1:
        yield Ranks()
        return
    joined.meet()  # so that what follows waits for none that is still at work on something else
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    store = dist.PrefixStore(f"attempt {joined.attempt}/collectives", connect())  # type: ignore[attr-defined]
    with joined.collective():
        dist.init_process_group(backend, store=store, rank=joined.rank, world_size=joined.size)
    try:
        yield Ranks(joined.rank, joined.size, joined)
    finally:
        dist.destroy_process_group()


def _all_reduce(tensor: Tensor, operation: Any = dist.ReduceOp.SUM) -> None:
    """Replace a tensor by its sum, or another reduction, over all ranks.

    Raises:
        LostRank: another one has ended.
    """
    with world.current().collective():
        dist.all_reduce(tensor, operation)


class _Sum(torch.autograd.Function):
    """The sum over all processes; the gradient of each is the sum of all gradients."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        total = values.clone()
        _all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        _all_reduce(total)
        return total


class SharedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm whose batch is that of all processes together, on any device (torch's own refuses CPUs).

    Saved and loaded as a BatchNorm2d.
    """

    ranks: Ranks

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        values = input.to(torch.promote_types(input.dtype, torch.float32))
        count = values.new_full((1,), values.numel() / values.shape[1])
        sums = _Sum.apply(torch.cat([values.sum((0, 2, 3)), count]))
        mean, total = sums[:-1] / sums[-1], sums[-1].detach()
        centred = values - mean[:, None, None]
        variance = _Sum.apply(centred.square().sum((0, 2, 3))) / total
        self._update(mean.detach(), variance.detach(), total / self.ranks.copies)
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


def share_batch_norm(network: nn.Module, ranks: Ranks) -> None:
    """Put a batch norm over all processes in the place of every batch norm of `network`, where there is more than one
    process.

    Before the optimiser is made: the parameters may be new ones.
    """
    if ranks.size == 1:
        return
    for module in list(network.modules()):
        for name, child in module.named_children():
            if type(child) is nn.BatchNorm2d:
                setattr(module, name, _shared(child, ranks))


def _shared(norm: nn.BatchNorm2d, ranks: Ranks) -> nn.Module:
    """The batch norm in a form for several processes: on a GPU torch's own, with fused kernels and half the messages.
    Where a group is too small to be split, that one counts its copies in the running variance."""
    if norm.num_batches_tracked is not None and norm.num_batches_tracked.is_cuda:
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(norm)  # type: ignore[no-untyped-call]
        return converted
    shared = SharedBatchNorm2d(norm.num_features, norm.eps, norm.momentum).to(norm.weight)
    shared.load_state_dict(norm.state_dict())
    shared.ranks = ranks
    return shared
