"""What happens to a network before its first step: the recipe's settings, its weights, its optimizer."""

import itertools
import math
from typing import Any

import torch
from torch import Tensor, nn

from sepnet.errors import SepnetError
from sepnet.recipes.recipe import Recipe
from sepnet.training.muon import TURNED, Muon

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def apply_norm_settings(model: nn.Module, recipe: Recipe) -> nn.Module:
    """Set batch norm's epsilon and momentum where the recipe names them; return the model."""
    for module in model.modules():
        if isinstance(module, BATCH_NORMS):
            module.eps = module.eps if recipe.norm_eps is None else recipe.norm_eps
            module.momentum = module.momentum if recipe.norm_momentum is None else recipe.norm_momentum
    return model


@torch.no_grad()
def initialize(model: nn.Module, recipe: Recipe) -> nn.Module:
    """Draw the weights anew as the recipe says, from PyTorch's global generator; return the model."""
    if recipe.initializer == "default":
        return model
    for module in model.modules():
        if recipe.initializer == "identity":
            if isinstance(module, CONVOLUTIONS) and module.in_channels == module.out_channels == module.groups:
                taps = module.weight.view(module.groups, -1)
                taps[:, taps.shape[1] // 2] += 1  # or, of even sides, beside it
        elif isinstance(module, (*CONVOLUTIONS, nn.Linear)):
            _glorot_uniform(module)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model


def _glorot_uniform(layer: nn.Module) -> None:
    """Draw a layer's weight from ±√(6 / (fan in + fan out)), the fans as Keras counts them.

    A depthwise kernel has the shape (kernel, channels, multiplier) there, so its fan in is kernel × channels.
    (Glorot and Bengio 2010, equation 16.)
    """
    weight = layer.weight
    assert isinstance(weight, Tensor)
    taps = math.prod(weight.shape[2:])
    fans = taps * (weight.shape[0] + weight.shape[1])
    if isinstance(layer, CONVOLUTIONS) and layer.groups == layer.in_channels > 1:
        fans = taps * (layer.in_channels + layer.out_channels // layer.in_channels)
    limit = math.sqrt(6 / fans)
    weight.uniform_(-limit, limit)


def build_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return the recipe's optimizer; weights of convolutions and dense layers decay, vectors do not.

    A group's ``share`` says which multiple of the recipe's ``lr`` its own is.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trainable:
        raise SepnetError("the network has no trainable parameter: expected at least one")
    turned = [p for p in _turned_weights(model) if p.requires_grad] if recipe.optimizer == "muon" else []
    rest = [parameter for parameter in trainable if not any(parameter is other for other in turned)]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in rest if p.ndim > 1], "weight_decay": recipe.weight_decay, "share": 1.0},
        {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0, "share": recipe.vector_lr},
    ]
    if turned:
        groups.append({"params": turned, TURNED: True, "share": recipe.muon_lr / recipe.lr})
    captured = trainable[0].device.type == "cuda"  # in a graph, where numbers would be fixed
    for group in groups:
        lr = recipe.lr * group["share"]
        group["lr"] = torch.tensor(lr, device=trainable[0].device) if captured else lr
    if recipe.optimizer == "adam":
        betas = (recipe.momentum, 0.999)
        return torch.optim.AdamW(groups, betas=betas, eps=recipe.eps, fused=True, capturable=captured)
    kind = Muon if recipe.optimizer == "muon" else torch.optim.SGD
    return kind(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.momentum > 0, fused=True)


def _turned_weights(model: nn.Module) -> list[Tensor]:
    """Return the weights of pointwise convolutions whose next layer, as layers are defined, is a batch norm.

    Without one the norm of a weight, which Muon holds fast, would mean something.
    """
    layers = [module for module in model.modules() if not any(module.children())]
    return [
        layer.weight
        for layer, following in itertools.pairwise(layers)
        if isinstance(layer, CONVOLUTIONS) and isinstance(following, BATCH_NORMS)
        if layer.groups == 1 and set(layer.kernel_size) == {1}
    ]


def pixel_statistics(images: Tensor, recipe: Recipe) -> tuple[list[float], list[float]]:
    """Return mean and deviation per channel, in shares of 255, that the recipe's normalization subtracts.

    Of ``images`` ``(N, C, H, W)``, uint8, from exact sums of whole numbers: every processor gives the same doubles,
    those nearest to the true values.
    """
    channels = images.shape[1]
    if recipe.normalize == "unit":
        return [0.0] * channels, [1.0] * channels
    means, deviations = [], []
    for channel in range(channels):
        counts = torch.bincount(images[:, channel].flatten(), minlength=256).tolist()
        pixels = sum(counts)
        total = sum(count * value for value, count in enumerate(counts))
        squares = sum(count * value**2 for value, count in enumerate(counts))
        means.append(total / (255 * pixels))
        deviations.append(_root_of_ratio(pixels * squares - total**2, 255 * pixels) or 1.0)
    return means, deviations


def _root_of_ratio(radicand: int, divisor: int) -> float:
    """Return √radicand / divisor, as near as a double comes."""
    bits = 128
    return math.isqrt(radicand << 2 * bits) / (divisor << bits)
