"""A faster form of a network in eval mode, for the attack, which needs gradients with respect to the images only.

It fuses batch norm into the convolution before it, and a pooled convolution into one matrix product.
"""

from collections import Counter
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.utils.parametrize import is_parametrized

threshold_backward = torch.ops.aten.threshold_backward
"""(gradient, values, threshold): the gradient where values > threshold, elsewhere 0; one pass over memory."""

TIE = 1e-30
"""Values of a pooling window that differ by less count as equal. It is far below float32's resolution, far above 0."""


class FusedConvolution(nn.Module):
    """A convolution fused with the batch norm after it: gamma / sqrt(var + eps) goes into the kernel, the rest into the
    bias. Reads the weights and statistics of both at every call and owns none."""

    def __init__(self, convolution: nn.Conv2d, norm: nn.BatchNorm2d | nn.SyncBatchNorm) -> None:
        super().__init__()
        self.convolution, self.norm = convolution, norm

    def forward(self, images: Tensor) -> Tensor:
        convolution, norm = self.convolution, self.norm
        with torch.no_grad():
            assert norm.running_mean is not None
            assert norm.running_var is not None
            scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
            bias = norm.bias - norm.running_mean * scale
            if convolution.bias is not None:
                bias += convolution.bias * scale
            kernel = convolution.weight * scale[:, None, None, None]
        return F.conv2d(
            images, kernel, bias, convolution.stride, convolution.padding, convolution.dilation, convolution.groups
        )


class PooledConvolution(nn.Module):
    """relu(maxpool(convolution)) with 2x2 pooling. On a CPU it is one matrix product with a column per pooling window:
    with few channels, libraries take twice as long for the gradient.

    The batch is the last dimension in memory, inside and in the result, so copied and compared values are contiguous.
    Reads the weights at every call.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, images: Tensor) -> Tensor:
        if images.is_cuda:
            return F.max_pool2d(self.convolution(images), 2).relu_()
        weight, bias = self.convolution.weight.detach(), self.convolution.bias
        bias = weight.new_zeros(len(weight)) if bias is None else bias.detach()
        side = weight.shape[-1] + 1
        pooled: Tensor = _PooledProduct.apply(images.permute(1, 2, 3, 0), kernel_of_windows(weight), bias, side)  # type: ignore[no-untyped-call]
        return pooled.permute(3, 0, 1, 2)

    @staticmethod
    def fits(convolution: nn.Conv2d, pooling: nn.Module, activation: nn.Module) -> bool:
        """Whether the layers can be fused: a 5x5 kernel, no padding, 2x2 pooling, ReLU. The matrix is (6/5)^2 times as
        large as the products that count; a smaller kernel would waste more."""
        facts = (convolution.kernel_size, convolution.stride, convolution.padding, convolution.dilation)
        return (
            (*facts, convolution.groups) == ((5, 5), (1, 1), (0, 0), (1, 1), 1)
            and isinstance(pooling, nn.MaxPool2d)
            and (pooling.kernel_size, pooling.stride, pooling.padding, pooling.dilation) == (2, 2, 0, 1)
            and not pooling.ceil_mode
            and isinstance(activation, nn.ReLU)
        )


class _PooledProduct(torch.autograd.Function):
    """The product of `PooledConvolution`, from images (C, H, W, N) to (O, H', W', N), with the gradient of the images
    only.

    If several values of a window share the maximum, each of them gets the gradient.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, kernel: Tensor, bias: Tensor, side: int) -> Tensor:
        columns = windows(images, side)
        values = (kernel @ columns.flatten(3).flatten(0, 2)).view(4, len(bias), -1)
        pairs = torch.maximum(values[:2], values[2:])
        largest = torch.maximum(pairs[0], pairs[1])
        below_largest = values.sub_(largest)
        pooled = largest.add_(bias[:, None]).clamp_min_(0)
        ctx.save_for_backward(below_largest, pooled, kernel)
        ctx.shape, ctx.columns_shape = images.shape, columns.shape
        return pooled.view(len(bias), *columns.shape[3:])

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        below_largest, pooled, kernel = ctx.saved_tensors
        side, _, channels, height, width, num = ctx.columns_shape
        gradient = threshold_backward(gradient.reshape(pooled.shape), pooled, 0).expand_as(below_largest)
        of_values = threshold_backward.grad_input(gradient, below_largest, -TIE, grad_input=below_largest)
        columns = (kernel.t() @ of_values.flatten(0, 1)).view(ctx.columns_shape)
        rows = columns.new_zeros(side, channels, height, ctx.shape[2], num)
        for right in range(side):
            rows[:, :, :, right : right + 2 * width : 2] += columns[:, right]
        images = columns.new_zeros(ctx.shape)
        for down in range(side):
            images[:, down : down + 2 * height : 2] += rows[down]
        return images, None, None, None


def windows(images: Tensor, side: int) -> Tensor:
    """The input patch of each 2x2 pooling window, from images (C, H, W, N): (side, side, C, H', W', N)."""
    return images.unfold(1, side, 2).unfold(2, side, 2).permute(4, 5, 0, 1, 2, 3).contiguous()


def kernel_of_windows(weight: Tensor) -> Tensor:
    """The matrix (4 * O, (k + 1)^2 * C) that maps the input patch of a 2x2 pooling window to its four values of a
    convolution with `weight` (O, C, k, k): the kernel at each of its four positions, zero elsewhere."""
    places = [F.pad(weight, (right, 1 - right, down, 1 - down)) for down in (0, 1) for right in (0, 1)]
    return torch.stack(places).permute(0, 1, 3, 4, 2).flatten(0, 1).flatten(1)


class _WholeLayers(fx.Tracer):
    """Traces into blocks, but takes each module without children as one layer, wherever it is defined."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not any(True for _ in m.children())


KNOWN = ("torch.", "torchvision.", "components.")
"""Beginnings of the modules whose layers compute in eval mode what their types and their trace say. A user's own layers
may branch on the images, or on what changes between two steps."""

_FUSED: WeakKeyDictionary[nn.Module, nn.Module | None] = WeakKeyDictionary()


def fuse(network: nn.Module) -> nn.Module:
    """A module that computes what `network` computes in eval mode, within rounding.

    It reads the weights of `network` itself, so it follows the training. Gradients reach only its input. A network
    without a convolution, with layers of a user's own, or that cannot be traced is returned unchanged.
    """
    if network not in _FUSED:
        layers = list(network.modules())
        worth_it = any(isinstance(layer, nn.Conv2d) for layer in layers) and all(map(_is_known, layers))
        _FUSED[network] = _fuse(network) if worth_it else None
    fused = _FUSED[network]
    return network if fused is None else fused


def _is_known(layer: nn.Module) -> bool:
    """Whether a layer does what its type says: it is not a user's own, and nothing computes its weights anew."""
    hooked = layer._forward_pre_hooks or layer._forward_hooks or is_parametrized(layer)
    return not hooked and f"{type(layer).__module__}.".startswith(KNOWN)


def _fuse(network: nn.Module) -> nn.Module | None:
    layers = dict(network.named_modules())
    try:
        graph = _WholeLayers().trace(network)
    except Exception:  # whatever a forward raises when it is not given numbers
        return None
    uses = Counter(node.target for node in graph.nodes)
    for node in graph.nodes:
        row = row_of_layers(node)
        kinds = [layers[member.target] for member in row]
        if not row or not isinstance(convolution := kinds[0], nn.Conv2d) or convolution.padding_mode != "zeros":
            continue
        if uses[node.target] > 1:
            continue
        norm = kinds[1] if len(row) > 1 else None
        if isinstance(norm, nn.BatchNorm2d | nn.SyncBatchNorm) and norm.affine and norm.track_running_stats:
            layers[node.target], absorbed = FusedConvolution(convolution, norm), row[1:2]
        elif len(row) > 2 and PooledConvolution.fits(convolution, kinds[1], kinds[2]):
            layers[node.target], absorbed = PooledConvolution(convolution), row[1:3]
        else:
            continue
        for member in reversed(absorbed):
            member.replace_all_uses_with(node)
            graph.erase_node(member)
    return fx.GraphModule(layers, graph)


def row_of_layers(node: fx.Node) -> list[fx.Node]:
    """The chain of layers that starts at a node: each one is the only user of the result before it."""
    row = []
    while node.op == "call_module":
        row.append(node)
        if len(node.users) > 1:
            break
        node = next(iter(node.users))
    return row
