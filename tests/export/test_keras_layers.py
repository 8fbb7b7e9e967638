"""Single layers: each gives what PyTorch gives, in as few Keras layers as it takes, or is refused by name."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import sepnet
from sepnet.errors import SepnetError

from .support import assert_same, randomize, refusal

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # of Keras
    pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning"),  # of PyTorch, for even kernels
]

SHAPE = (4, 9, 11)
Function = Callable[[Tensor], Tensor]


class Functional(nn.Module):
    def __init__(self, function: Callable[..., Tensor], *modules: nn.Module, **tensors: Tensor) -> None:
        super().__init__()
        self.function, self.inner = function, nn.ModuleList(modules)
        for name, tensor in tensors.items():
            if isinstance(tensor, nn.Parameter):
                self.register_parameter(name, tensor)
            else:
                self.register_buffer(name, tensor)
        self.names = tuple(tensors)

    def forward(self, x: Tensor) -> Tensor:
        tensors = {name: getattr(self, name) for name in self.names}
        return self.function(x, *self.inner, **tensors)


def chain(*modules: nn.Module) -> nn.Sequential:
    """Return the modules with something a summary has a row for after them."""
    return nn.Sequential(*modules, nn.LeakyReLU(0.5))


ACTIVATIONS = [
    *(nn.ReLU(), nn.ReLU6(), nn.LeakyReLU(), nn.LeakyReLU(0.3), nn.ELU(), nn.ELU(0.5), nn.SELU(), nn.CELU()),
    *(nn.CELU(0.5), nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.Mish(), nn.Sigmoid(), nn.LogSigmoid(), nn.Tanh()),
    *(nn.Softplus(), nn.Softplus(2.0), nn.Softsign(), nn.Hardswish(), nn.Hardsigmoid(), nn.Hardtanh()),
    *(nn.Hardtanh(-0.5, 0.7), nn.Tanhshrink(), nn.Softshrink(), nn.Softshrink(0.2), nn.Hardshrink()),
    *(nn.Hardshrink(0.1), nn.Threshold(0.1, 2.0), nn.PReLU(), nn.PReLU(4), nn.Softmax(1), nn.Softmax(-2)),
    *(nn.Softmax2d(), nn.LogSoftmax(1)),
]


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=repr)
def test_activations(activation: nn.Module) -> None:
    assert_same(randomize(chain(activation)), SHAPE, 1e-6)


CONVOLUTIONS: list[tuple[nn.Module, str]] = [
    (nn.Conv2d(4, 6, 3, groups=2, padding=1), "Conv2D(filters=6, kernel_size=(3, 3), padding='same', groups=2)"),
    (nn.Conv2d(4, 4, 3, groups=4, padding=1), "DepthwiseConv2D(kernel_size=(3, 3), padding='same')"),
    (nn.Conv2d(4, 8, 3, 2, groups=4, bias=False), "strides=(2, 2), depth_multiplier=2, use_bias=False)"),
    (nn.Conv2d(4, 4, 3, (1, 2), 1, groups=4), "Conv2D(filters=4, kernel_size=(3, 3), strides=(1, 2), padding='same'"),
    (nn.Conv2d(4, 3, 4, padding="same", dilation=2), "padding='same', dilation_rate=(2, 2))"),
    (nn.Conv2d(4, 3, 2, padding="same"), "kernel_size=(2, 2), padding='same')"),
    (nn.Conv2d(4, 3, 3, padding=(1, 2)), "ZeroPadding2D(padding=(1, 2))"),
    (nn.Conv2d(4, 3, 3, stride=2, padding=1), "strides=(2, 2), padding='same')"),  # both sizes are odd
    (nn.Conv2d(4, 3, 4, stride=2, padding=1), "ZeroPadding2D(padding=(1, 1))"),
    (nn.Conv2d(4, 3, 1, padding=1), "ZeroPadding2D(padding=(1, 1))"),
    (nn.Conv2d(4, 3, 1, stride=2, dilation=2), "strides=(2, 2), padding='same')"),
    (nn.Conv2d(4, 3, 3, padding=1, padding_mode="reflect"), "mode='reflect'"),
    (
        nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(4, 3, 2)),
        "Conv2D(filters=3, kernel_size=(2, 2), padding='same')",
    ),
    (nn.Sequential(nn.ZeroPad2d(1), nn.ReLU(), nn.Conv2d(4, 3, 3)), "ZeroPadding2D(padding=(1, 1))"),
    (
        nn.Sequential(nn.Conv2d(4, 8, 3, 2, groups=4, bias=False), nn.Conv2d(8, 3, 1)),
        "SeparableConv2D(filters=3, kernel_size=(3, 3), strides=(2, 2), depth_multiplier=2)",
    ),
    (
        nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False), nn.Identity(), nn.Conv2d(4, 3, 1)),
        "SeparableConv2D(filters=3, kernel_size=(3, 3), padding='same')",
    ),
    (nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 3, 1)), "DepthwiseConv2D(kernel_size=(3, 3))"),
    (
        nn.Sequential(nn.Conv2d(4, 4, 3, (1, 2), groups=4, bias=False), nn.Conv2d(4, 3, 1)),
        "Conv2D(filters=4, kernel_size=(3, 3), strides=(1, 2), groups=4, use_bias=False)",
    ),
]


@pytest.mark.parametrize(("module", "line"), CONVOLUTIONS, ids=lambda value: value if isinstance(value, str) else "")
def test_convolutions(module: nn.Module, line: str) -> None:
    assert line in assert_same(randomize(nn.Sequential(module)), SHAPE, 1e-5)


POOLS = [
    *(nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(2, ceil_mode=True), nn.MaxPool2d(3, 1, 1), nn.MaxPool2d(4, 3, (1, 2))),
    *(nn.AvgPool2d(2), nn.AvgPool2d(2, ceil_mode=True), nn.AvgPool2d(3, 2, 1), nn.AvgPool2d(3, 1, 1)),
    *(nn.AvgPool2d(3, 2, 1, count_include_pad=False), nn.AvgPool2d(3, 2, 1, divisor_override=5)),
    *(nn.AdaptiveAvgPool2d(1), nn.AdaptiveAvgPool2d((3, 11)), nn.AdaptiveMaxPool2d((3, 1)), nn.AdaptiveMaxPool2d(1)),
    nn.AdaptiveAvgPool2d((None, 1)),
]


@pytest.mark.parametrize("pool", POOLS, ids=repr)
@pytest.mark.parametrize("shape", [(4, 9, 11), (4, 12, 22)])
def test_pools(pool: nn.Module, shape: tuple[int, int, int]) -> None:
    reason = refusal(chain(pool), shape, 1e-6)
    may_be_refused = isinstance(pool, nn.AvgPool2d) and (pool.ceil_mode or not pool.count_include_pad)
    assert not reason or (may_be_refused and "its windows reach over the edge" in reason)


def test_max_pooling_pads_with_minus_infinity() -> None:
    pool = nn.Sequential(nn.MaxPool2d(3, 2, 1), nn.Conv2d(4, 2, 1))
    assert "constant_values=float('-inf')" in assert_same(randomize(pool), (4, 8, 12))


NORMS = [
    *(nn.BatchNorm2d(4, affine=False), nn.BatchNorm2d(4, eps=1e-3, momentum=0.03), nn.GroupNorm(2, 4)),
    *(nn.GroupNorm(1, 4, affine=False), nn.InstanceNorm2d(4), nn.InstanceNorm2d(4, affine=True)),
    *(nn.LayerNorm((4, 9, 11)), nn.LayerNorm(11), nn.ChannelShuffle(2), nn.Dropout2d(0.2), nn.AlphaDropout(0.1)),
    *(nn.ReflectionPad2d(1), nn.ConstantPad2d((1, 0, 2, 1), 3.0), nn.ZeroPad2d((-1, 2, 0, -1)), nn.Linear(11, 3)),
    nn.Sequential(nn.ChannelShuffle(2), nn.Flatten(), nn.Linear(396, 3)),
    nn.Sequential(nn.Flatten(), nn.Unflatten(1, (4, 9, 11)), nn.Conv2d(4, 2, 3)),
    nn.Sequential(nn.Flatten(), nn.GroupNorm(4, 396), nn.Linear(396, 3)),
    nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 3, 1), nn.Sigmoid()),
]


@pytest.mark.parametrize("module", NORMS, ids=lambda module: repr(module).replace("\n", ""))
def test_norms_dropout_padding_and_views(module: nn.Module) -> None:
    assert_same(randomize(chain(module)), SHAPE, 1e-5)


FUNCTIONS: dict[str, Function] = {
    **{f"torch.{name}": getattr(torch, name) for name in ["abs", "exp", "expm1", "square", "sin", "cos", "erf", "neg"]},
    "arctangent": torch.atan,
    "logarithms and roots": lambda x: (x.abs() + 0.5).log().abs().log1p().sqrt().add(0.1).rsqrt(),
    "x + 1": lambda x: x + 1,
    "1 - x": lambda x: 1 - x,
    "x / 3": lambda x: x / 3,
    "3 / x": lambda x: 3 / (x.abs() + 1),
    "x ** 2": lambda x: x**2,
    "x + x": lambda x: x + x,
    "x - y": lambda x: x - 2 * x,
    "rsub": lambda x: torch.rsub(x, 2 * x),
    "x / y": lambda x: x / (x.abs() + 1),
    "maximum": lambda x: torch.maximum(x, 2 * x),
    "minimum": lambda x: torch.minimum(x, 2 * x),
    "clamp": lambda x: x.clamp(-0.2, 0.3),
    "by keyword": lambda x: torch.cat(tensors=[F.relu(input=x), torch.add(input=x, other=x)], dim=1),
    "clamp beside its input": lambda x: x.clamp(0, 1) + x,
    "clamp min": lambda x: x.clamp(min=0.1),
    "clamp_max": lambda x: torch.clamp_max(x, 0.2),
    "functional": lambda x: F.celu(F.softplus(F.leaky_relu(x, 0.2), 2), 0.3),
    "dropout": lambda x: F.dropout(x, 0.5, training=False),
    "slice of channels": lambda x: x[:, 1:3],
    "slice of positions": lambda x: x[:, :, 1:-1, 2:],
    "strided slice": lambda x: x[..., ::2, 1::3],
    "one position": lambda x: x[:, :, 0, 0],
    "new dimensions": lambda x: x * x[:, :, 0, 0][:, :, None, None],
    "narrow": lambda x: x.narrow(1, 1, 2),
    "select": lambda x: x.select(2, 3),
    "chunk": lambda x: torch.cat([x.chunk(2, 1)[1], x.chunk(2, 1)[0]], 1),
    "split": lambda x: x.split([1, 3], 1)[1],
    "mean": lambda x: x.mean((2, 3)),
    "sum": lambda x: x.sum((2, 3)),
    "amax of channels": lambda x: x.amax(1),
    "amin": lambda x: x.amin(3),
    "gate of the whole": lambda x: x * x.mean((1, 2, 3), keepdim=True),
    "gate of channels": lambda x: x * x.mean((2, 3), keepdim=True).expand_as(x),
    "gate of positions": lambda x: x * x.mean(1, keepdim=True).sigmoid(),
    "flattened positions": lambda x: x.flatten(2).mean(-1),
    "channels last and back": lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (4,)).permute(0, 3, 1, 2),
    "transposed": lambda x: x.transpose(2, 3),
    "shuffle": lambda x: x.view(-1, 2, 2, 9, 11).transpose(1, 2).reshape(-1, 4, 9, 11),
    "squeeze": lambda x: F.adaptive_avg_pool2d(x, 1).squeeze(-1).squeeze(-1),
    "pad by a number": lambda x: F.pad(x, (1, 2, 0, 1), value=1.5),
    "pad channels": lambda x: F.pad(x, (0, 0, 1, 0, 0, 3)),
    "in place": lambda x: (x * 1).add_(2).relu_() + x,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str) -> None:
    assert_same(chain(Functional(FUNCTIONS[name])), SHAPE, 1e-5)


def test_a_value_changed_in_place_is_seen_changed() -> None:
    model = Functional(lambda x, convolution: F.relu_(convolution(x)) + convolution(x), nn.Conv2d(4, 4, 1))
    assert_same(randomize(model), SHAPE, 1e-5)

    def residual(x: Tensor, first: nn.Module, second: nn.Module) -> Tensor:
        x = first(x)
        return second(F.relu(x, inplace=True)) + x

    assert_same(randomize(Functional(residual, nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1))), SHAPE, 1e-5)


TENSORS: dict[str, nn.Module] = {
    "convolution": Functional(
        lambda x, w, b: F.conv2d(x, w, b, padding=1),
        w=nn.Parameter(torch.rand(2, 4, 3, 3)),
        b=nn.Parameter(torch.rand(2)),
    ),
    "fixed blur": Functional(lambda x, w: F.conv2d(x, w, stride=2, padding=1, groups=4), w=torch.rand(4, 1, 3, 3)),
    "batch norm": Functional(
        lambda x, m, v, w, b: F.batch_norm(x, m, v, w, b, False, 0.1, 1e-3),
        m=torch.rand(4),
        v=torch.rand(4) + 0.5,
        w=nn.Parameter(torch.rand(4)),
        b=nn.Parameter(torch.rand(4)),
    ),
    "dense": Functional(lambda x, w: F.linear(x.flatten(1), w), w=nn.Parameter(torch.rand(3, 396))),
    "layer scale": Functional(lambda x, g: x * g.view(1, -1, 1, 1), g=nn.Parameter(torch.rand(4))),
}


@pytest.mark.parametrize("name", TENSORS)
def test_functions_of_parameters_and_buffers(name: str) -> None:
    assert_same(TENSORS[name].eval(), SHAPE, 1e-5)


def test_fixed_mean_and_deviation_are_numbers_in_a_rescaling() -> None:
    model = Functional(lambda x, m, s: F.relu((x - m) / s), m=torch.rand(1, 4, 1, 1), s=torch.rand(4, 1, 1) + 0.5)
    source = sepnet.keras_definition(model, image_shape=SHAPE)
    assert source.count("Rescaling(") == 2
    assert "Left out" not in source


def half_frozen() -> nn.Module:
    convolution = nn.Conv2d(4, 4, 3)
    assert convolution.bias is not None
    convolution.bias.requires_grad_(False)
    return convolution


def half_shared() -> nn.Module:
    first, second = nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)
    second.weight = first.weight
    return nn.Sequential(first, second)


REFUSED: list[tuple[nn.Module, str]] = [
    (nn.Conv2d(4, 3, 3, stride=2, dilation=2), r"layer '0' \(Conv2d\): it has stride 2 and dilation 2"),
    (nn.Conv2d(4, 3, 3, padding=1, padding_mode="circular"), "it pads by mode 'circular'"),
    (nn.MaxPool2d(2, dilation=2), "its windows are dilated"),
    (nn.AvgPool2d(4, 4, ceil_mode=True), "divide by a count that Keras does not"),
    (nn.AvgPool2d(3, 2, (1, 0), count_include_pad=False, ceil_mode=True), "divide by a count that Keras does not"),
    (nn.BatchNorm2d(4, track_running_stats=False), "it keeps no moving statistics"),
    (nn.InstanceNorm2d(4, track_running_stats=True), "it keeps moving statistics"),
    (nn.LayerNorm((9, 11)), "it normalizes over some dimensions"),
    (nn.RMSNorm((4, 9, 11)), r"layer '0' \(RMSNorm\): Keras has no layer for it"),
    (nn.RReLU(), r"layer '0' \(RReLU\): Keras has no layer for it"),
    (nn.FeatureAlphaDropout(0.1), "Keras has no such dropout"),
    (nn.LogSoftmax(3), "it runs along another dimension"),
    (parametrizations.weight_norm(nn.Conv2d(4, 4, 3)), "its weight is computed; .*without a parametrization"),
    (half_frozen(), "some of its tensors are frozen"),
    (half_shared(), "it shares weights with a layer of other settings"),
    (Functional(lambda x: F.dropout(x, 0.5)), "it drops in evaluation too; give it training=self.training"),
    (Functional(lambda x: torch.stack([x, x], 1).sum(1)), r"\(stack\): Keras has no layer for it"),
    (Functional(lambda x: x.view(-1)), "it does away with the batch"),
    (Functional(lambda x: x.half().float()), "it changes the precision"),
    (Functional(lambda x: x.mean((2, 3), keepdim=True).expand_as(x)), "values that were expanded"),
    (Functional(lambda x: torch.add(x, x, alpha=2)), "Keras has no layer for this arithmetic"),
    (Functional(lambda x: x / 0), "it divides by 0"),
    (Functional(lambda x, g: g * x, g=nn.Parameter(torch.rand(1))), "no layer for a learned factor"),
    (Functional(lambda x, g: g + x, g=nn.Parameter(torch.rand(4, 1, 1))), "no layer that trains what it is to add"),
    (Functional(lambda x, w: F.conv2d(x, w.abs()), w=nn.Parameter(torch.rand(2, 4, 3, 3))), "its weight is computed"),
]


@pytest.mark.parametrize(("module", "reason"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_what_keras_cannot_do_is_refused_by_name(module: nn.Module, reason: str) -> None:
    with pytest.raises(SepnetError, match=reason) as error:
        sepnet.keras_definition(chain(module), image_shape=SHAPE)
    assert str(error.value).startswith("network 'Sequential' cannot be written in Keras: ")
    assert "\n" not in str(error.value)


def test_a_view_changed_in_place_is_refused() -> None:
    def forward(x: Tensor) -> Tensor:
        doubled = 2 * x
        F.relu_(doubled[:, :2])
        return F.relu(doubled)

    with pytest.raises(SepnetError, match="'relu' changed in place what it uses"):
        sepnet.keras_definition(Functional(forward), image_shape=SHAPE)


def test_several_results_are_refused() -> None:
    model = Functional(lambda x: (F.relu(x), x))  # type: ignore[arg-type, return-value]
    with pytest.raises(SepnetError, match="it gives several tensors"):
        sepnet.keras_definition(model, image_shape=SHAPE)
