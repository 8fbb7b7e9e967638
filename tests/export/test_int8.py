"""The int8 plan: the network's own answers within rounding, and arithmetic that is exact."""

from fractions import Fraction
from math import floor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

import sepnet
from sepnet import data as datasets
from sepnet.errors import SepnetError
from sepnet.export.int8 import reference
from sepnet.export.int8.footprint import footprint
from sepnet.export.int8.layers import Activation
from sepnet.export.int8.lowering import lower
from sepnet.export.int8.plan import Convolve, Multiplier, Table
from sepnet.export.int8.quantization import normalized, plan_for_sizes, quantize
from sepnet.export.int8.schedule import schedule
from sepnet.networks.registry import NETWORKS, build
from sepnet.networks.shipped import shipped_folder
from sepnet.runs import Run
from tests.export.int8_support import MEAN, SHAPE, STD, everything, pixels, plan_of, randomized


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_layers_compute_what_the_network_computes(name: str) -> None:
    model = randomized(build(name))
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = model(images)
        torch.testing.assert_close(lower(model, (3, 32, 32)).run(images), expected, atol=1e-4, rtol=1e-4)


def test_layers_of_every_operator_compute_what_the_network_computes_before_its_softmax() -> None:
    model, _ = everything()
    images = torch.randn(3, *SHAPE)
    with torch.no_grad():
        scores = lower(model, SHAPE).run(images)
        torch.testing.assert_close(scores.softmax(1), model(images), atol=1e-5, rtol=1e-4)


def test_int8_scores_are_the_networks_within_rounding() -> None:
    model, plan = everything()
    images = pixels(30, seed=1)
    with torch.no_grad():
        expected = lower(model, SHAPE).run(normalized(images, MEAN, STD))
    found = reference.logits(plan, images)
    spread = float(expected.std())
    assert float((found - expected).abs().mean()) < 0.1 * spread
    assert torch.corrcoef(torch.stack([found.flatten(), expected.flatten()]))[0, 1] > 0.99


@settings(deadline=None)
@given(
    st.integers(-(2**31), 2**31 - 1),
    st.floats(2.0**-31, 2.0**29, exclude_min=True, allow_nan=False, allow_subnormal=False),
)
def test_a_multiplier_rounds_to_the_nearest_a_half_up(total: int, real: float) -> None:
    factor = Multiplier.of(real)
    exact = Fraction(factor.mantissa, 2**factor.shift)
    assert abs(exact / Fraction(real) - 1) <= Fraction(1, 2**31)
    found = reference.scaled(torch.tensor([total]), (factor,))
    assert int(found) == floor(total * exact + Fraction(1, 2))


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_accumulators_are_exact(groups: int) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 16, (3, 2), (2, 1), (1, 0), (1, 2), groups), nn.Flatten())
    network = nn.Sequential(randomized(model), nn.Linear(16 * 4 * 5, 5)).eval()
    convolution = plan_of(network, (3, 7, 7)).operators[2]
    assert isinstance(convolution, Convolve)
    x = torch.randint(-255, 256, (2, 7, 7, 8), generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    weight = torch.from_numpy(convolution.weight).permute(0, 3, 1, 2).double()
    expected = functional.conv2d(x.permute(0, 3, 1, 2).double(), weight, None, (2, 1), (1, 0), (1, 2), groups)
    assert torch.equal(reference.accumulate(convolution, x), expected.permute(0, 2, 3, 1).int())


def test_a_pixel_of_the_mean_is_the_zero_that_pads() -> None:
    grey = torch.tensor([102, 51, 153], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, *SHAPE)
    mean = (102 / 255, 51 / 255, 153 / 255)
    plan = plan_of(everything()[0], SHAPE, mean=mean)
    values = reference.apply(plan.operators[0], plan, [grey.permute(0, 2, 3, 1)])
    assert torch.equal(values, torch.full_like(values, plan.scales[1].zero_point))


def test_a_functions_constant_ends_cost_no_steps() -> None:
    def live(function: nn.Module) -> tuple[float, float]:
        return Activation(inputs=(0,), output=1, shape=(1, 1, 1), function=function, name="").live

    assert live(nn.ReLU()) == (0, torch.inf)
    assert live(nn.ReLU6()) == (0, 6)
    assert live(nn.Hardswish()) == pytest.approx((-3, torch.inf), abs=1 / 64)
    assert live(nn.LeakyReLU()) == (-torch.inf, torch.inf)
    plan = plan_of(nn.Sequential(nn.Conv2d(3, 5, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()), SHAPE)
    assert not any(isinstance(operator, Table) for operator in plan.operators)
    assert plan.scales[2].zero_point == -128


def test_the_arena_holds_all_that_is_alive_at_once_and_need_not_be_calibrated() -> None:
    model, plan = everything()
    laid_out = schedule(plan)
    assert laid_out.arena_bytes >= laid_out.bound
    again = schedule(plan_for_sizes(lower(model, SHAPE)))
    assert again.arena_bytes == laid_out.arena_bytes
    champion = schedule(plan_for_sizes(lower(build("champion"), (3, 32, 32))))
    assert champion.arena_bytes == champion.bound
    pixel_between = 48
    assert champion.arena_bytes == 2 * 32 * 32 * 48 + 2 * pixel_between


@pytest.mark.slow
def test_the_footprint_before_training_is_that_of_the_trained_plan() -> None:
    run = Run.open(shipped_folder("champion"))
    images = datasets.load("sample").train.images[:4]  # sizes do not depend on what they are
    config, model = run.config, sepnet.load(run)
    settings = {"mean": config.mean, "std": config.std, "classes": config.classes}
    plan = quantize(lower(model, config.image_shape), images, **settings)  # type: ignore[arg-type]
    before = footprint(build("champion"), config.image_shape)
    assert (before.flash, before.ram) == (plan.constant_bytes, schedule(plan).arena_bytes)
    assert before.largest in dict(model.named_modules())
    assert before.peak in dict(model.named_modules())


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (nn.Upsample(scale_factor=2), "upsample_nearest2d in '0' has no int8 arithmetic"),
        (nn.GroupNorm(1, 3), "group_norm in '0' has no int8 arithmetic"),
        (nn.ReflectionPad2d(1), "only zeros are known"),
        (nn.PReLU(3), "prelu in '0'"),
        (nn.Identity(), r"expected scores \(N, classes\)"),
    ],
)
def test_what_int8_does_not_know_is_refused_by_name(layer: nn.Module, words: str) -> None:
    with pytest.raises(SepnetError, match=words) as caught:
        lower(nn.Sequential(layer, nn.Conv2d(3, 5, 1)), SHAPE, "mine")
    assert "network 'mine' cannot be exported" in str(caught.value)
    assert "\n" not in str(caught.value)
