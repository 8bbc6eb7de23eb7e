"""The same function as a network in eval mode, faster: for the attack, which needs gradients of the image alone.

Two foldings: of batch norm into the convolution before it, and of 4x4 pixels into channels where there is but one.
"""

from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

SIDE = 4
"""Of the squares that become channels."""


class FoldedConvolution(nn.Module):
    """A convolution and the batch norm after it in one: gamma / sqrt(var + eps) goes into the kernel, the rest into the
    bias. Reads the weights and statistics of both at every call and owns none."""

    def __init__(self, convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
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
    """A convolution of one-channel images and the 2x2 max pooling after it.

    On a CPU the 4x4 pixels of a square become channels, and each square of 4x4 outputs comes from 2x2 of those squares:
    libraries are several times slower at the gradient of a single channel. Reads the weights at every call.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, images: Tensor) -> Tensor:
        weight, bias = self.convolution.weight.detach(), self.convolution.bias
        height, width = images.shape[-2] - SIDE, images.shape[-1] - SIDE
        if images.is_cuda or height % SIDE or width % SIDE:
            return F.max_pool2d(self.convolution(images), 2)
        repeated = None if bias is None else bias.detach().repeat(SIDE * SIDE)
        squares = F.conv2d(F.pixel_unshuffle(images, SIDE), kernel_of_squares(weight), repeated)
        # Channels are (row, column of the pooled 2x2, four values that are pooled, channel): pool, then lay rows out.
        num, _, rows, columns = squares.shape
        values = squares.permute(0, 2, 3, 1).reshape(num, rows * columns * 4, 4, len(weight)).permute(0, 3, 1, 2)
        pooled = F.max_pool2d(values, (1, 4)).permute(0, 2, 3, 1).view(num, rows, columns, 2, 2, len(weight))
        return pooled.transpose(2, 3).reshape(num, 2 * rows, 2 * columns, len(weight)).permute(0, 3, 1, 2)

    @staticmethod
    def fits(convolution: nn.Conv2d, pooling: nn.Module) -> bool:
        """Whether the two layers are such a pair: kernel 5x5, no border, pooled 2x2."""
        facts = (convolution.in_channels, convolution.kernel_size, convolution.stride, convolution.padding)
        return (
            facts == (1, (SIDE + 1, SIDE + 1), (1, 1), (0, 0))
            and isinstance(pooling, nn.MaxPool2d)
            and (pooling.kernel_size, pooling.stride, pooling.padding, pooling.dilation) == (2, 2, 0, 1)
        )


def kernel_of_squares(weight: Tensor) -> Tensor:
    """The kernel (16 * O, 16, 2, 2) that takes squares of 4x4 pixels to squares of 4x4 outputs of `weight`
    (O, 1, 5, 5): zero but for the 5x5 pixels that each output sees; outputs as `PooledConvolution` orders them."""
    shifts = [(down, right) for down in range(SIDE) for right in range(SIDE)]
    shifted = [F.pad(weight, (right, SIDE - 1 - right, down, SIDE - 1 - down)) for down, right in shifts]
    kernels = torch.stack([F.pixel_unshuffle(kernel, SIDE) for kernel in shifted])
    ordered = torch.unflatten(kernels, 0, (2, 2, 2, 2)).transpose(1, 2).flatten(0, 4)
    return ordered.contiguous(memory_format=torch.channels_last)


class _WholeLayers(fx.Tracer):
    """Looks into blocks, never into layers, whatever file they come from."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not any(True for _ in m.children())


_FOLDED: WeakKeyDictionary[nn.Module, nn.Module] = WeakKeyDictionary()


def fold(network: nn.Module) -> nn.Module:
    """The same function as `network` in eval mode, within rounding.

    It reads the layers of `network` itself, so that it follows the training; gradients reach its input alone. What
    holds no convolution is given back as it is.
    """
    if not any(isinstance(layer, nn.Conv2d) for layer in network.modules()):
        return network
    if network not in _FOLDED:
        _FOLDED[network] = _fold(network)
    return _FOLDED[network]


def _fold(network: nn.Module) -> nn.Module:
    layers = dict(network.named_modules())
    graph = _WholeLayers().trace(network)
    for node in graph.nodes:
        before = node.args[0] if node.op == "call_module" else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
            continue
        convolution, layer = layers[before.target], layers[node.target]
        if not isinstance(convolution, nn.Conv2d) or convolution.padding_mode != "zeros":
            continue
        if isinstance(layer, nn.BatchNorm2d):
            layers[before.target] = FoldedConvolution(convolution, layer)
        elif PooledConvolution.fits(convolution, layer):
            layers[before.target] = PooledConvolution(convolution)
        else:
            continue
        node.replace_all_uses_with(before)
        graph.erase_node(node)
    return fx.GraphModule(layers, graph)
