"""What trace reads, what it refuses by name, and what it leaves alone."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sepnet.anatomy import Layer, trace
from sepnet.errors import SepnetError
from sepnet.networks import build


@torch.fx.wrap
def drop_path(x: Tensor, rate: float, training: bool) -> Tensor:
    """Stochastic depth, kept whole for ``torch.fx`` as torchvision keeps its own."""
    return x if rate == 0 or not training else x * (torch.rand(len(x)) > rate)


class Net(nn.Module):
    """A network given by its forward and its parts."""

    def __init__(self, forward: Callable[[Any, Tensor], Any], **parts: Any) -> None:
        super().__init__()
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)
        self.body = forward

    def forward(self, x: Tensor) -> Any:
        return self.body(self, x)


def conv(inputs: int = 3, outputs: int = 4, size: int = 3, **settings: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, **settings)


def last(model: nn.Module) -> Layer:
    return trace(model).layers[-1]


def test_published_network_is_the_assignments() -> None:
    anatomy = trace(build("published"))
    rows = [layer for layer in anatomy.layers if layer.kind in ("separable", "max pool")]
    sizes = [3, 5, 7, 7, 8, 12, 16, 20, 20, 22, 30, 38, 46, 50, 50]
    assert [layer.receptive_field for layer in rows] == [(size, size) for size in sizes]
    assert (anatomy.parameters, anatomy.trainable) == (96_009, 93_865)


@pytest.mark.parametrize(("network", "parameters"), [("base", 1_172_410), ("resnet8", 78_666)])
def test_totals_of_the_reference_networks(network: str, parameters: int) -> None:
    assert trace(build(network)).parameters == parameters


def test_global_pooling_widens_the_field_and_what_follows_keeps_it() -> None:
    pool, dense = trace(build("published")).layers[-2:]
    assert pool.kind == "global average pool"
    assert pool.receptive_field == dense.receptive_field == (50 + 3 * 8, 50 + 3 * 8)


@pytest.mark.parametrize(
    ("model", "layer", "reason"),
    [
        (nn.Sequential(conv(), nn.Upsample(scale_factor=2)), "layer '1' (Upsample)", "upsampling"),
        (nn.Sequential(nn.ConvTranspose2d(3, 3, 2, 2)), "layer '0' (ConvTranspose2d)", "transposed"),
        (nn.Sequential(nn.Unfold(3)), "layer '0' (Unfold)", "not known"),
        (nn.Sequential(conv(), nn.AdaptiveAvgPool2d(7)), "layer '1' (AdaptiveAvgPool2d)", "30 positions to 7"),
        (Net(lambda net, x: F.interpolate(x, scale_factor=2)), "'upsample_nearest2d'", "upsampling"),
        (Net(lambda net, x: torch.cat([x, x], dim=2)), "'cat'", "image axis"),
        (Net(lambda net, x: x @ x.transpose(2, 3)), "'matmul'", "products"),
        (Net(lambda net, x: x.view(1, 3, 8, 4, 8, 4)), "'view'", "cuts an image axis"),
        (Net(lambda net, x: net.c(x.flatten(2)), c=nn.Conv1d(3, 4, 3)), "layer 'c' (Conv1d)", "flattened"),
        (Net(lambda net, x: net.r(x.flatten(2))[0], r=nn.GRU(1024, 3)), "layer 'r' (GRU)", "recurrent"),
        (Net(lambda net, x: torch.flip(x, (2,))), "'flip'", "not known"),
        (Net(lambda net, x: torch.cond(x.sum() > 0, torch.sin, torch.cos, (x,))), "its own forward", "uses cond"),
    ],
)
def test_unreadable_operations_are_named(model: nn.Module, layer: str, reason: str) -> None:
    with pytest.raises(SepnetError) as caught:
        trace(model, name="mine")
    message = str(caught.value)
    assert "network 'mine' cannot be read" in message
    assert layer in message
    assert reason in message
    assert "\n" not in message


class MadeInForward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        pooled: Tensor = nn.MaxPool2d(2)(nn.ReLU()(self.conv(x)))
        return pooled


def test_modules_made_in_forward_are_read_as_functions() -> None:
    functions = Net(lambda net, x: F.max_pool2d(F.relu(net.conv(x)), 2), conv=nn.Conv2d(3, 8, 3))
    kinds = [(layer.kind, layer.output, layer.receptive_field) for layer in trace(MadeInForward()).layers]
    assert kinds == [(layer.kind, layer.output, layer.receptive_field) for layer in trace(functions).layers]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_part_is_refused_by_name() -> None:
    part = nn.Sequential(nn.BatchNorm2d(8), nn.ReLU()).eval()
    for compiled in (torch.jit.script(part), torch.jit.trace(part, torch.zeros(1, 8, 4, 4))):
        with pytest.raises(SepnetError, match=r"layer '1' is compiled by torch\.jit"):
            trace(nn.Sequential(nn.Conv2d(3, 8, 3), compiled))


def test_decisions_by_values_are_refused() -> None:
    inner = Net(lambda net, x: net.c(x) if x.sum() > 0 else x, c=conv())
    with pytest.raises(SepnetError, match="in layer '0' it decides by the values in a tensor"):
        trace(nn.Sequential(inner))
    with pytest.raises(SepnetError, match="'item': it takes a number from the values"):
        trace(Net(lambda net, x: x * x.mean().item()))


@pytest.mark.parametrize("network", ["base", "published"])
def test_too_small_an_image_names_the_layer_that_refuses(network: str) -> None:
    with pytest.raises(SepnetError, match=r"in layer '\d+', for an image 3×4×4: .*image shape"):
        trace(build(network), (3, 4, 4))


def test_wrong_channels_name_the_layer_that_refuses() -> None:
    with pytest.raises(SepnetError, match=r"in layer '0\.depthwise', for an image 1×32×32"):
        trace(build("published"), (1, 32, 32))


def test_forward_with_a_second_input_is_refused() -> None:
    class TwoInputs(nn.Module):
        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            return x * mask

    with pytest.raises(SepnetError, match="its forward also expects 'mask'"):
        trace(TwoInputs())


def test_shapes_may_decide() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        *_, height, width = x.shape
        return net.c(x) if height == width > 8 and x.size(1) == 3 and x.dim() == 4 else x

    assert last(Net(forward, c=conv())).kind == "convolution"


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (nn.Sequential(conv(3, 4, 3, stride=2), conv(4, 4, 3, stride=2)), ((7, 7), (4, 4))),
        (nn.Sequential(nn.Conv2d(3, 4, (3, 5), stride=(1, 2), dilation=(2, 1))), ((5, 5), (1, 2))),
        (nn.Sequential(conv(), nn.GroupNorm(2, 4)), ((32, 32), (0, 0))),
        (nn.Sequential(conv(), nn.InstanceNorm2d(4)), ((32, 32), (0, 0))),
        (nn.Sequential(conv(), nn.BatchNorm2d(4)), ((3, 3), (1, 1))),
        (nn.Sequential(nn.PixelUnshuffle(2), conv(12)), ((6, 6), (2, 2))),
        (nn.Sequential(conv(), nn.AdaptiveAvgPool2d(6)), ((7, 7), (5, 5))),
        (nn.Sequential(conv(), nn.AdaptiveAvgPool2d((1, 30))), ((32, 3), (0, 1))),
        (nn.Sequential(conv(3, 4, stride=31), conv(4, 4, 3, padding=1)), ((65, 65), (31, 31))),
        (nn.Sequential(nn.AvgPool2d(32), nn.Flatten(), nn.Linear(3, 4)), ((32, 32), (0, 0))),
        (nn.Sequential(nn.MaxPool2d(32), nn.AdaptiveAvgPool2d(6)), ((32, 32), (0, 0))),
        (nn.Sequential(conv(), nn.ChannelShuffle(2), nn.Softmax2d()), ((3, 3), (1, 1))),
        (Net(lambda net, x: net.c(x.mean(3)), c=nn.Conv1d(3, 4, 3)), ((3, 32), (1, 0))),
        (Net(lambda net, x: drop_path(net.c(x), 0.5, net.training), c=conv()), ((3, 3), (1, 1))),
        (Net(lambda net, x: F.max_pool2d(x, 2, return_indices=True)[0].relu()), ((2, 2), (2, 2))),
        (
            Net(lambda net, x: torch.stack([net.a(x), net.b(x)]).mean(0), a=conv(), b=conv(size=5, padding=1)),
            ((5, 5), (1, 1)),
        ),
        (Net(lambda net, x: net.b(x).add_(net.a(x)), a=conv(), b=conv(size=5, padding=1)), ((5, 5), (1, 1))),
        (Net(lambda net, x: torch.cat([x, x.new_zeros(1, 1, 32, 32)], 1)), ((1, 1), (1, 1))),
        (Net(lambda net, x: torch.cat([x, torch.zeros(1, 1, 32, 32)], 1)), ((1, 1), (1, 1))),
        (Net(lambda net, x: F.softmax(net.c(x).flatten(1), dim=1), c=conv()), ((32, 32), (0, 0))),
        (Net(lambda net, x: {"logits": net.c(x), "none": torch.zeros(3)}, c=conv()), ((3, 3), (1, 1))),
    ],
)
def test_field_and_jump(model: nn.Module, expected: tuple[tuple[int, int], tuple[int, int]]) -> None:
    layer = last(model)
    assert (layer.receptive_field, layer.jump) == expected


def test_branches_with_different_offsets_unite() -> None:
    left, right = nn.Conv2d(3, 2, 3, padding=(2, 0)), nn.Conv2d(3, 2, 3, padding=(0, 2))
    model = Net(lambda net, x: net.a(x)[:, :, :30, :30] + net.b(x)[:, :, :30, :30], a=left, b=right)
    layer = last(model)
    assert (layer.start, layer.receptive_field, layer.jump) == ((-2, -2), (5, 5), (1, 1))


def test_in_place_addition_changes_what_later_readers_see() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        y = net.a(x)
        y.add_(net.b(y))
        return net.c(y)

    def operator(net: Any, x: Tensor) -> Tensor:
        y = z = net.a(x)
        z += net.b(y)
        return net.c(y)

    for body in (forward, operator):
        model = Net(body, a=conv(3, 4), b=conv(4, 4, 5, padding=2), c=conv(4, 4, 1))
        assert last(model).receptive_field == (7, 7)


def test_padding_on_one_side_and_cutting_on_the_other_moves_the_field() -> None:
    layer = last(Net(lambda net, x: F.pad(x, (2, -2, -1, 1))))
    assert (layer.start, layer.output) == ((1, -2), (3, 32, 32))


def test_model_is_left_as_it_was() -> None:
    model = nn.Sequential(
        nn.utils.parametrizations.spectral_norm(conv()), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.ReLU(inplace=True)
    )
    model[1].eval()
    modes = [module.training for module in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    attributes, state = set(vars(model)), torch.get_rng_state()
    trace(model)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert set(vars(model)) == attributes
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(parameter.grad is not None for parameter in model.parameters())


def test_attributes_that_forward_sets_are_put_back() -> None:
    class Remembers(nn.Module):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            self.seen = x
            return x.relu()

    inner = Remembers()
    trace(nn.Sequential(inner))
    assert inner.calls == 0
    assert not hasattr(inner, "seen")


def test_model_is_left_as_it_was_after_an_error() -> None:
    model = nn.Sequential(conv(), nn.Dropout(0.5), nn.Linear(7, 7))
    with pytest.raises(SepnetError):
        trace(model)
    assert all(module.training for module in model.modules())
    assert model(torch.zeros(1, 3, 32, 9)).shape == (1, 4, 30, 7)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_any_precision(dtype: torch.dtype) -> None:
    assert trace(build("published").to(dtype)).parameters == 96_009


def test_a_network_without_layers_is_refused() -> None:
    with pytest.raises(SepnetError, match="expected at least one layer"):
        trace(nn.Sequential(nn.Identity()))


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (F.logsigmoid, "log sigmoid"),
        (lambda x: F.threshold(x, 0.1, 0.0), "threshold"),
        (lambda x: torch.threshold_(x.clone(), 0.1, 0.0), "threshold"),
    ],
    ids=["logsigmoid", "threshold", "threshold in place"],
)
def test_functions_that_pytorch_names_otherwise_inside(function: Callable[..., Tensor], kind: str) -> None:
    assert last(Net(lambda net, x: function(x))).kind == kind
