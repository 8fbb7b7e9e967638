import math
from decimal import Decimal, localcontext

import pytest
import torch
from torch import nn

from sepnet.errors import SepnetError
from sepnet.recipes.recipe import Recipe, recipe_from_dict
from sepnet.training.initialization import apply_norm_settings, build_optimizer, initialize, pixel_statistics
from tests.training.support import patterns, tiny


def test_norm_settings_are_the_recipes_where_it_has_any() -> None:
    model = nn.Sequential(nn.BatchNorm2d(4, eps=1e-4, momentum=0.3))
    apply_norm_settings(model, Recipe())
    assert (model[0].eps, model[0].momentum) == (1e-4, 0.3)
    apply_norm_settings(model, Recipe(norm_eps=1e-3, norm_momentum=0.01))
    assert (model[0].eps, model[0].momentum) == (1e-3, 0.01)


@pytest.mark.parametrize(
    ("layer", "fans"),
    [
        (nn.Conv2d(16, 32, 3), 9 * 16 + 9 * 32),
        (nn.Conv2d(64, 64, 3, groups=64), 9 * 64 + 9 * 1),
        (nn.Conv2d(32, 64, 5, groups=32), 25 * 32 + 25 * 2),
        (nn.Linear(300, 100), 300 + 100),
    ],
)
def test_glorot_uniform_has_keras_limits(layer: nn.Conv2d | nn.Linear, fans: int) -> None:
    """Keras's fans of a kernel (height, width, in, out or multiplier) are its taps times in, and times out."""
    torch.manual_seed(0)
    initialize(nn.Sequential(layer), Recipe(initializer="glorot_uniform"))
    limit = math.sqrt(6 / fans)
    assert layer.weight.detach().abs().max() <= limit
    assert layer.weight.detach().std() == pytest.approx(limit / math.sqrt(3), rel=0.1)
    assert layer.bias is not None
    assert not layer.bias.detach().any()


def test_only_weights_of_convolutions_and_dense_layers_decay() -> None:
    model = tiny()
    decays = {
        id(parameter): group["weight_decay"]
        for group in build_optimizer(model, Recipe(weight_decay=0.1)).param_groups
        for parameter in group["params"]
    }
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            assert decays[id(module.weight)] == 0.1
        if isinstance(module, nn.BatchNorm2d):
            assert decays[id(module.weight)] == decays[id(module.bias)] == 0


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "muon"])
def test_vectors_and_pointwise_weights_have_rates_of_their_own(optimizer: str) -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6), nn.Conv2d(6, 2, 1))
    recipe = recipe_from_dict({"optimizer": optimizer, "lr": 0.1, "muon_lr": 0.02, "vector_lr": 3}, source="test")
    rates = {
        id(parameter): group["lr"]
        for group in build_optimizer(model, recipe).param_groups
        for parameter in group["params"]
    }
    assert len(rates) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        pointwise = name == "1.weight" and optimizer == "muon"  # no batch norm follows the other
        expected = 0.02 if pointwise else 0.3 if parameter.ndim == 1 else 0.1
        assert rates[id(parameter)] == pytest.approx(expected)


def test_a_network_without_parameters_is_refused() -> None:
    with pytest.raises(SepnetError, match="no trainable parameter"):
        build_optimizer(nn.Sequential(nn.ReLU()), Recipe())


def test_pixel_statistics_are_those_of_the_pixels() -> None:
    images = patterns().train.images
    mean, std = pixel_statistics(images, Recipe(normalize="standard"))
    pixels = images.double() / 255
    assert mean == pytest.approx(pixels.mean((0, 2, 3)).tolist())
    assert std == pytest.approx(pixels.std((0, 2, 3), unbiased=False).tolist())
    assert pixel_statistics(images, Recipe(normalize="unit")) == ([0.0] * 3, [1.0] * 3)


def test_pixel_statistics_are_the_doubles_nearest_to_the_true_values() -> None:
    """Those of arithmetic with 60 digits: so they cannot depend on the processor."""
    images = torch.randint(0, 256, (97, 3, 7, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    means, deviations = pixel_statistics(images, Recipe(normalize="standard"))
    with localcontext(prec=60):
        for channel, (mean, deviation) in enumerate(zip(means, deviations, strict=True)):
            pixels = [Decimal(value) / 255 for value in images[:, channel].flatten().tolist()]
            exact = sum(pixels, Decimal()) / len(pixels)
            assert mean == float(exact)
            variance = sum(((pixel - exact) ** 2 for pixel in pixels), Decimal()) / len(pixels)
            assert deviation == float(variance.sqrt())


def test_identity_lets_depthwise_convolutions_pass_the_image_on() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, (3, 5), groups=4), nn.Conv2d(4, 8, 3, groups=4), nn.Conv2d(4, 4, 1))
    before = [weight.detach().clone() for weight in model.parameters() if weight.ndim > 1]
    initialize(model, Recipe(initializer="identity"))
    after = [weight.detach() for weight in model.parameters() if weight.ndim > 1]
    depthwise, multiplied, pointwise = (new - old for new, old in zip(after, before, strict=True))
    assert not multiplied.any()
    assert not pointwise.any()
    images = torch.randn(2, 4, 6, 7, generator=torch.Generator().manual_seed(0))
    same = nn.functional.conv2d(images, depthwise, padding=(1, 2), groups=4)
    torch.testing.assert_close(same, images)
