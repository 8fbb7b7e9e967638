# mypy: disable-error-code="operator"
# A module's attributes, which the networks here are made of, are modules or tensors to mypy.
"""Accelerated networks against the same networks in plain PyTorch and float64."""

import copy
import gc
import pickle
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torch.nn.utils.prune
from torch import Tensor, nn

from sepnet.kernels import stage
from sepnet.kernels.accelerate import Accelerated, accelerate
from sepnet.kernels.follow import is_called_whole
from sepnet.kernels.native import native
from sepnet.networks.base import base
from sepnet.networks.champion import champion
from sepnet.networks.published import published
from sepnet.networks.resnet8 import resnet8
from tests.anatomy.foreign import FOREIGN

from .networks import NETWORKS, ByMode, MoreArguments, Parts, depthwise, pointwise
from .support import TOLERANCE, needs_kernels

pytestmark = [
    needs_kernels,
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel"),
]
NAMED: dict[str, Callable[[], nn.Module]] = {
    "base": base,
    "published": published,
    "champion": champion,
    "resnet8": resnet8,
}


def _tensors(output: Any) -> Iterable[Tensor]:
    """Yield the tensors of an output, in order."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, (list, tuple, dict)):
        for part in output.values() if isinstance(output, dict) else output:
            yield from _tensors(part)


def _kinds(output: Any) -> Any:
    """Return an output's containers and its tensors' shapes."""
    if isinstance(output, dict):
        return {name: _kinds(part) for name, part in output.items()}
    if isinstance(output, (list, tuple)):
        return type(output)(map(_kinds, output))
    return output.shape


def _run(network: Callable[[Tensor], Any], model: nn.Module, images: Tensor, autocast: bool) -> dict[str, Tensor]:
    """Return outputs, the gradient by the images and every parameter, and every buffer after the pass."""
    images = images.clone(memory_format=torch.preserve_format).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        output = network(images)
    found = {f"output {index}": tensor for index, tensor in enumerate(_tensors(output))}
    generator = torch.Generator().manual_seed(1)
    model.zero_grad()
    slopes = [torch.randn(tensor.shape, generator=generator, dtype=torch.float64) for tensor in found.values()]
    sum((tensor.double() * slope).sum() for tensor, slope in zip(found.values(), slopes, strict=True)).backward()  # type: ignore[union-attr]
    gradients = {f"gradient by {name}": parameter.grad for name, parameter in model.named_parameters()}
    found |= {name: gradient for name, gradient in gradients.items() if gradient is not None}
    assert images.grad is not None
    found["gradient by images"] = images.grad
    return {name: t.detach() for name, t in found.items()} | {name: b.clone() for name, b in model.named_buffers()}


def _same(model: nn.Module, images: Tensor, *, autocast: bool = False, steps: int = 2) -> None:
    """Assert that a network does as it would in float64, as nearly as PyTorch's own computation does.

    What rounding leaves where PyTorch's gradients cancel (a bias before a batch norm has none), or where a ReLU's
    gate turns, is measured by what it leaves in PyTorch's own.
    """
    plain, exact = copy.deepcopy(model), copy.deepcopy(model).double()
    network = accelerate(model)
    assert isinstance(network, Accelerated)
    for _ in range(steps):
        own = _run(network, model, images, autocast)
        by_pytorch = _run(plain, plain, images, autocast)
        right = _run(exact, exact, images.double(), False)
        assert own.keys() == by_pytorch.keys() == right.keys()
        gradients = max(float(t.abs().max()) for name, t in right.items() if name.startswith("gradient by"))
        for name, tensor in right.items():
            assert own[name].shape == tensor.shape, name
            assert own[name].dtype == by_pytorch[name].dtype, name
            largest = float(tensor.abs().max())
            largest = max(largest, 0.1) if not name.startswith("gradient") else largest  # a mean may be 0
            allowed = TOLERANCE[torch.float32] * max(largest, gradients if name.startswith("gradient") else 0)
            difference = float((own[name].double() - tensor).abs().max())
            theirs = float((by_pytorch[name].double() - tensor).abs().max())
            if autocast:
                allowed = TOLERANCE[torch.bfloat16] * largest + 8 * theirs
            assert difference <= max(allowed, 16 * theirs), (name, difference / largest, theirs / largest)


def _images(*shape: int, channels_last: bool = False) -> Tensor:
    images = torch.randn(shape, generator=torch.Generator().manual_seed(7))
    return images.contiguous(memory_format=torch.channels_last) if channels_last else images


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_odd_networks_compute_what_they_say(name: str, training: bool) -> None:
    torch.manual_seed(2)
    model = NETWORKS[name]().train(training)
    _same(model, _images(4, 3, 9, 7))
    _same(model, _images(1, 3, 8, 8))


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "Viewed"])
def test_odd_networks_compute_what_they_say_of_channels_last(name: str) -> None:
    torch.manual_seed(2)
    _same(NETWORKS[name](), _images(4, 3, 9, 7, channels_last=True))


@pytest.mark.parametrize("name", ["Folded", "Paddings", "SeveralOutputs", "InputUsedOften", "BuffersAndParameters"])
@pytest.mark.parametrize("training", [True, False])
def test_networks_without_gates_in_bf16(name: str, training: bool) -> None:
    compiled = native()
    if compiled is None or not compiled.computes(torch.bfloat16):
        pytest.skip("no kernels for bf16 on this processor")
    torch.manual_seed(2)
    _same(NETWORKS[name]().train(training), _images(16, 3, 9, 7), autocast=True)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", [name for name in FOREIGN if name != "LeNet"])
def test_other_peoples_networks_compute_what_they_say(name: str, training: bool) -> None:
    torch.manual_seed(2)
    model = FOREIGN[name]().train(training)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    _same(model, _images(4, 3, 32, 32))


def test_a_network_that_counts_its_own_sizes_is_left_alone() -> None:
    model = FOREIGN["LeNet"]()
    assert accelerate(model) is model


def _without_dropout(model: nn.Module) -> nn.Module:
    """Masks differ: those of the kernels are not PyTorch's."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("training", [True, False])
def test_named_networks_compute_what_they_say(name: str, autocast: bool, training: bool) -> None:
    """Also as they look after some training, when norms' scales and statistics are no longer 1 and 0."""
    torch.manual_seed(4)
    model = _without_dropout(NAMED[name]()).train(training)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
            nn.init.uniform_(module.running_mean, -0.5, 0.5)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    size = 32 if name == "base" else 16
    _same(model, _images(6, 3, size, size, channels_last=True), autocast=autocast, steps=1)


def test_dropout_is_drawn_anew_at_each_pass_and_follows_pytorchs_seed() -> None:
    model = nn.Sequential(pointwise(3, 8), nn.MaxPool2d(2), nn.Dropout(0.5), pointwise(8, 4), nn.Dropout(0.3))
    network, x = accelerate(model), _images(4, 3, 8, 8)
    torch.manual_seed(1)
    first, second = network(x), network(x)
    torch.manual_seed(1)
    assert torch.equal(network(x), first)
    assert not torch.equal(first, second)
    assert float((first == 0).double().mean()) == pytest.approx(0.3, abs=0.06)
    model.eval()
    assert torch.equal(network(x), network(x))
    torch.testing.assert_close(network(x), model(x))


def _trained_alike(model: nn.Module, change: Callable[[nn.Module], object], images: Tensor) -> Any:
    """Change a network after it was accelerated; assert that it still does as it says, and return it."""
    network = accelerate(model)
    network(images)
    change(model)
    torch.testing.assert_close(network(images), model(images), rtol=1e-4, atol=1e-5)
    return network


def _plain_network() -> nn.Sequential:
    return nn.Sequential(pointwise(3, 8), nn.BatchNorm2d(8), nn.ReLU(), depthwise(8), pointwise(8, 4)).eval()


def _set(module: Any, **values: Any) -> None:
    for name, value in values.items():
        setattr(module, name, value)


CHANGES: dict[str, Callable[[Any], object]] = {
    "a module replaced": lambda model: _set(model, **{"3": depthwise(8, 5)}),
    "a module added": lambda model: model.append(nn.Sigmoid()),
    "a module taken away": lambda model: model.pop(2),
    "a forward hook": lambda model: model[3].register_forward_hook(lambda *_: torch.ones(2, 8, 6, 6)),
    "a forward pre-hook": lambda model: model[3].register_forward_pre_hook(lambda _, inputs: (inputs[0] * 2,)),
    "weight norm": lambda model: nn.utils.parametrizations.weight_norm(model[0]),
    "pruned": lambda model: nn.utils.prune.l1_unstructured(model[0], "weight", 0.5),
    "another padding": lambda model: _set(model[3], padding_mode="reflect", _reversed_padding_repeated_twice=[1] * 4),
    "another stride": lambda model: _set(model[3], stride=(2, 2)),
    "another eps": lambda model: _set(model[1], eps=0.5),
    "a forward of its own": lambda model: _set(model[3], forward=lambda x: x * 3),
    "weights replaced": lambda model: _set(model[0], weight=nn.Parameter(torch.randn(8, 3, 1, 1))),
    "no bias": lambda model: _set(model[0], bias=None),
    "weights loaded": lambda model: model.load_state_dict(_plain_network().state_dict()),
    "statistics removed": lambda model: _set(model[1], running_mean=None, running_var=None),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_to_the_network_is_followed(name: str) -> None:
    torch.manual_seed(0)
    _trained_alike(_plain_network(), CHANGES[name], _images(2, 3, 6, 6))


def test_the_mode_of_every_module_is_followed() -> None:
    model = ByMode()
    both = nn.Sequential(model, pointwise(8, 2))
    network, x = accelerate(both), _images(2, 3, 6, 6)
    for outer, inner in ((True, True), (False, False), (True, False), (False, True), (True, True)):
        both.train(outer)
        model.train(inner)
        torch.testing.assert_close(network(x), both(x), rtol=1e-4, atol=1e-5)


class Scaled(Parts):
    FACTOR = 1.0

    def __init__(self) -> None:
        super().__init__(a=pointwise(3, 8), b=depthwise(8))
        self.depth = 0
        self.weights = [1.0, 2.0]

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        for _ in range(self.depth):
            x = self.b(x)
        return x * self.FACTOR * self.weights[0]


def test_a_setting_that_the_code_reads_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = Scaled(), _images(2, 3, 6, 6)
    network = _trained_alike(model, lambda model: _set(model, depth=2), x)
    for change in (
        lambda: _set(model, depth=0),
        lambda: model.weights.__setitem__(0, 3.0),
        lambda: monkeypatch.setattr(Scaled, "FACTOR", 0.5),
        *(lambda depth=depth: _set(model, depth=depth) for depth in range(12)),
    ):
        change()
        torch.testing.assert_close(network(x), model(x), rtol=1e-4, atol=1e-5)


def test_what_was_refused_later_is_said_once(capfd: pytest.CaptureFixture[str]) -> None:
    model = _plain_network()
    network = _trained_alike(model, CHANGES["a forward hook"], _images(2, 3, 6, 6))
    for _ in range(3):
        network(_images(2, 3, 6, 6))
    assert capfd.readouterr().err.count("it has hooks") == 1


def test_hooks_on_all_modules_see_each_of_them() -> None:
    model, x, seen = _plain_network(), _images(2, 3, 6, 6), []
    network = accelerate(model)
    handle = nn.modules.module.register_module_forward_hook(lambda module, *_: seen.append(type(module)))
    try:
        network(x)
    finally:
        handle.remove()
    assert seen == [*map(type, model), nn.Sequential]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_network_of_another_type_is_left_to_pytorch(dtype: torch.dtype) -> None:
    model = _plain_network().to(dtype)
    assert torch.equal(accelerate(model)(_images(2, 3, 6, 6).to(dtype)), model(_images(2, 3, 6, 6).to(dtype)))
    network = accelerate(_plain_network())
    assert isinstance(network, Accelerated)
    network.model.to(dtype)
    assert network(_images(2, 3, 6, 6).to(dtype)).dtype == dtype


def test_a_precision_without_kernels_is_left_to_pytorch() -> None:
    model, x = _plain_network(), _images(2, 3, 6, 6)
    network = accelerate(model)
    with torch.autocast("cpu", torch.float16):
        assert torch.equal(network(x), model(x))


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(2, 3, 6, 6, dtype=torch.float64),
        torch.zeros(2, 3, 6, 6, dtype=torch.bfloat16),
        torch.zeros(2, 3, 6, 6, dtype=torch.uint8),
        torch.zeros(2, 4, 6, 6),
        torch.zeros(6, 6),
        torch.zeros(2, 3, 6, 6, device="meta"),
        "images",
        None,
    ],
    ids=str,
)
def test_images_that_pytorch_refuses_are_refused_alike(images: Any) -> None:
    model = _plain_network()
    with pytest.raises((RuntimeError, TypeError, ValueError, NotImplementedError)) as by_pytorch:
        model(images)
    with pytest.raises(by_pytorch.type):
        accelerate(model)(images)


@pytest.mark.parametrize(
    ("layers", "size"),
    [
        ([pointwise(3, 8), depthwise(16)], 6),
        ([pointwise(3, 8), nn.BatchNorm2d(16)], 6),
        ([pointwise(3, 8), nn.BatchNorm2d(16).eval()], 6),
        ([depthwise(3), pointwise(16, 4)], 6),
        ([pointwise(3, 8), depthwise(8, 7, padding=0)], 6),
        ([pointwise(3, 8), nn.MaxPool2d(8)], 6),
        ([pointwise(3, 8), nn.AvgPool2d(8)], 6),
        ([pointwise(3, 8), nn.BatchNorm2d(8)], 1),
        ([pointwise(3, 8), nn.BatchNorm2d(8, track_running_stats=False).eval()], 1),
    ],
    ids=str,
)
def test_layers_that_do_not_fit_raise_as_in_pytorch(layers: list[nn.Module], size: int) -> None:
    model, images = nn.Sequential(*layers), _images(1, 3, size, size)
    with pytest.raises((RuntimeError, ValueError)) as by_pytorch:
        model(images)
    with pytest.raises(by_pytorch.type, match=str(by_pytorch.value)[:20].replace("(", ".").replace("[", ".")):
        accelerate(model)(images)


def test_an_exception_leaves_the_network_usable() -> None:
    model = _plain_network()
    network = accelerate(model)
    with pytest.raises(RuntimeError):
        network(_images(2, 4, 6, 6))
    torch.testing.assert_close(network(_images(2, 3, 6, 6)), model(_images(2, 3, 6, 6)), rtol=1e-4, atol=1e-5)


def test_single_images_and_none_at_all() -> None:
    model = nn.Sequential(pointwise(3, 8), nn.ReLU(), depthwise(8), nn.MaxPool2d(2))
    for images in (_images(3, 6, 6), _images(0, 3, 6, 6)):
        torch.testing.assert_close(accelerate(model)(images), model(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("training", [True, False])
def test_without_gradients(context: Callable[[], Any], training: bool) -> None:
    torch.manual_seed(0)
    model = _plain_network().train(training)
    plain, network, x = copy.deepcopy(model), accelerate(model), _images(4, 3, 6, 6)
    with context():
        y, right = network(x), plain(x)
    assert not y.requires_grad
    assert y.is_inference() == right.is_inference()
    torch.testing.assert_close(y, right, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.state_dict(), plain.state_dict(), rtol=1e-4, atol=1e-5)
    # And then with gradients again, of the same network.
    assert network(x).requires_grad


def test_other_arguments_reach_the_network() -> None:
    model, x = MoreArguments(), _images(2, 3, 6, 6)
    network: Any = accelerate(model)
    torch.testing.assert_close(network(x), model(x), rtol=1e-4, atol=1e-5)
    mask = torch.arange(6.0)
    assert torch.equal(network(x, mask), model(x, mask))
    assert torch.equal(network(x=x, scale=3.0), model(x, scale=3.0))
    assert isinstance(network(x, features=True), tuple)
    with pytest.raises(TypeError):
        network()


def test_outputs_are_as_the_network_returns_them() -> None:
    model, x = NETWORKS["SeveralOutputs"](), _images(2, 3, 6, 6)
    own, plain = accelerate(model)(x), model(x)
    assert _kinds(own) == _kinds(plain)
    assert type(own[1][1]) is list
    assert type(own[2]) is dict
    for channels_last in (False, True):
        y = accelerate(_plain_network())(_images(2, 3, 6, 6, channels_last=channels_last))
        assert y.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


class ChangesTwice(Parts):
    """In PyTorch the shortcut is changed along with what it is another name of."""

    def __init__(self) -> None:
        super().__init__(a=pointwise(3, 8), b=depthwise(8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        shortcut = x
        x += 1
        return self.b(x) + shortcut


class ChangesView(ChangesTwice):
    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        first = x[:, :4]
        first.add_(1)
        return self.b(x)


class ChangesAfterUse(ChangesTwice):
    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return x + torch.relu_(x)


class ChangesImages(ChangesTwice):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(F.relu(x, True)))


class ChangesThroughIdentity(ChangesTwice):
    def __init__(self) -> None:
        super().__init__()
        self.same, self.act = nn.Identity(), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.act(self.same(x)) + x


@pytest.mark.parametrize("network", [ChangesTwice, ChangesView, ChangesAfterUse, ChangesImages, ChangesThroughIdentity])
def test_values_changed_in_place_under_two_names_are_left_to_pytorch(network: type[nn.Module]) -> None:
    model = network()
    assert accelerate(model) is model


def test_networks_with_nothing_to_win_are_themselves_without_a_word(capfd: pytest.CaptureFixture[str]) -> None:
    models = [
        nn.Linear(3, 3),
        depthwise(3),
        nn.Sequential(),
        nn.Sequential(nn.Flatten(), nn.Linear(3, 3), nn.Tanh()),
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.SiLU()),
        nn.DataParallel(_plain_network()),
        nn.TransformerEncoderLayer(8, 2, batch_first=True),
    ]
    for model in models:
        assert accelerate(model) is model
    assert capfd.readouterr().err == ""


def test_a_network_on_another_device_is_itself() -> None:
    model = _plain_network().to("meta")
    assert accelerate(model) is model


def test_the_model_is_left_as_it_was() -> None:
    model = nn.Sequential(_plain_network(), NETWORKS["Written"]())
    before = {name: set(vars(module)) for name, module in model.named_modules()}
    modes = [module.training for module in model.modules()]
    network = accelerate(nn.Sequential(_plain_network()))
    accelerate(model)
    network(_images(2, 3, 6, 6))
    assert before == {name: set(vars(module)) for name, module in model.named_modules()}
    assert modes == [module.training for module in model.modules()]


def test_models_and_accelerated_ones_can_be_copied_and_pickled() -> None:
    model, x = _plain_network(), _images(2, 3, 6, 6)
    network = accelerate(model)
    y = network(x)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(accelerate(copied)(x), y)
    twin: Any = copy.deepcopy(network)
    torch.testing.assert_close(twin(x), y)
    twin.model[0].weight.data.zero_()
    assert not torch.equal(twin(x), y)
    assert torch.equal(network(x), y)
    torch.testing.assert_close(pickle.loads(pickle.dumps(network))(x), y)


def test_gradients_add_up_over_passes_and_may_be_taken_twice() -> None:
    torch.manual_seed(0)
    model = champion(classes=3).train()
    plain, x = copy.deepcopy(_without_dropout(model)), _images(4, 3, 16, 16)
    for network in (accelerate(model), plain):
        y = network(x)
        y.sum().backward(retain_graph=True)
        y.square().sum().backward()
        network(x).sum().backward()
    largest = max(float(p.grad.abs().max()) for p in plain.parameters() if p.grad is not None)
    for own, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(own.grad, theirs.grad, rtol=1e-4, atol=1e-4 * largest)


def test_gradients_by_some_tensors_alone() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*_plain_network()).train()
    plain = copy.deepcopy(model)
    grads = []
    for network, owner in ((accelerate(model), model), (plain, plain)):
        x = _images(4, 3, 6, 6).requires_grad_()
        middle: Any = owner[3]
        y = network(x).square().sum()
        grads.append([*torch.autograd.grad(y, [x], retain_graph=True), *torch.autograd.grad(y, [middle.weight])])
    for own, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(own, theirs, rtol=1e-4, atol=1e-5)


def test_a_parameters_own_hooks_are_called() -> None:
    model, seen = _plain_network(), []
    parameter = next(model.parameters())
    parameter.register_hook(lambda gradient: gradient * 0)
    parameter.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.abs().max()))
    accelerate(model)(_images(2, 3, 6, 6)).sum().backward()
    assert seen == [0]


@pytest.mark.parametrize("layers", [[depthwise(3, bias=False), pointwise(3, 4)], [*_plain_network()]], ids=len)
def test_weights_changed_between_the_passes_are_noticed_as_in_pytorch(layers: list[nn.Module]) -> None:
    model = nn.Sequential(*layers)
    y = accelerate(model)(_images(2, 3, 6, 6)).square().sum()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


def test_a_second_derivative_is_refused_not_wrong() -> None:
    model, x = _plain_network(), _images(2, 3, 6, 6).requires_grad_()
    (slope,) = torch.autograd.grad(accelerate(model)(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError):
        slope.square().sum().backward()


@pytest.mark.parametrize("name", ["champion", "published"])
def test_a_network_that_has_come_apart_says_so(name: str) -> None:
    """The trainer stops where the loss is not finite; a ReLU that made 0 of NaN would hide it."""
    model = NAMED[name]().train()
    weight = next(model.parameters())
    with torch.no_grad():
        weight.fill_(torch.nan)
    assert accelerate(model)(_images(4, 3, 16, 16)).isnan().all()


def test_nothing_is_kept_after_a_pass() -> None:
    model = published(classes=3)
    network = accelerate(model)
    x = _images(2, 3, 16, 16)
    network(x).sum().backward()
    model.zero_grad()
    gc.collect()
    before = {id(thing) for thing in gc.get_objects() if type(thing) is Tensor}
    y = network(x)
    alive = weakref.ref(y)
    y.sum().backward()
    model.zero_grad()
    del y
    gc.collect()
    assert alive() is None
    left = [thing.shape for thing in gc.get_objects() if type(thing) is Tensor and id(thing) not in before]
    assert left == []


def test_a_loss_that_is_kept_keeps_no_values() -> None:
    """PyTorch frees what a gradient was computed from, though the loss, and the graph behind it, live on."""
    model = champion(classes=3)
    network, losses = accelerate(model), []

    def count() -> int:
        gc.collect()
        return sum(thing.numel() for thing in gc.get_objects() if type(thing) is Tensor)

    for _ in range(2):
        before = count()
        losses.append(network(_images(8, 3, 16, 16)).sum())
        losses[-1].backward()
    assert count() - before < 8 * 3 * 16 * 16


def test_values_are_freed_as_soon_as_they_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """In evaluation no more than three images' values of a chain are there at once: read, written, formed."""
    model, outputs, most = nn.Sequential(pointwise(3, 8), *(depthwise(8) for _ in range(20))).eval(), [], 0
    forward = stage._forward

    def watched(*flat: Any) -> Any:
        nonlocal most
        found = forward(*flat)
        outputs.append(weakref.ref(found[0]))
        most = max(most, sum(output() is not None for output in outputs))
        return found

    monkeypatch.setattr(stage, "_forward", watched)
    network = accelerate(model)
    with torch.no_grad():
        network(_images(2, 3, 6, 6))
    assert len(outputs) == 21
    assert most <= 3


def test_two_runs_of_training_give_the_same_bits() -> None:
    def trained() -> list[Tensor]:
        torch.manual_seed(0)
        model = champion(classes=3).train()
        network, optimizer = accelerate(model), torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(3):
            torch.manual_seed(step)
            with torch.autocast("cpu", torch.bfloat16):
                loss = network(_images(8, 3, 16, 16)).float().square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return [*model.state_dict().values()]

    assert all(map(torch.equal, trained(), trained()))


def test_without_kernels_a_network_is_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEPNET_KERNELS", "none")
    from sepnet.kernels.native import _find

    _find.cache_clear()
    try:
        model = _plain_network()
        assert accelerate(model) is model
    finally:
        monkeypatch.undo()
        _find.cache_clear()


def test_the_graph_follows_only_modules_that_hold_others() -> None:
    assert is_called_whole(nn.Linear(2, 2))
    assert is_called_whole(nn.Sequential())
    assert not is_called_whole(nn.Sequential(nn.Linear(2, 2)))
    assert is_called_whole(nn.DataParallel(nn.Linear(2, 2)))
