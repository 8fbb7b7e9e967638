# mypy: disable-error-code="operator"
# A module's attributes, which the networks here are made of, are modules or tensors to mypy.
"""Compiled networks compute what the same networks do in plain PyTorch and float64."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import sepnet
from sepnet.backend import native as kernels
from tests.anatomy.foreign import FOREIGN

from .comparing import NAMED, kinds, plain_network, random_images, same, without_dropout
from .networks import NETWORKS, MoreArguments, depthwise, pointwise
from .support import accelerate, needs_kernels, operators

pytestmark = [
    needs_kernels,
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel"),
]


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_odd_networks_compute_what_they_say(name: str) -> None:
    torch.manual_seed(2)
    same(NETWORKS[name](), random_images(4, 3, 9, 7))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Folded", "Paddings", "AddInPlace", "BuffersAndParameters"])
def test_odd_networks_compute_what_they_say_in_evaluation(name: str) -> None:
    torch.manual_seed(2)
    same(NETWORKS[name]().eval(), random_images(4, 3, 9, 7, channels_last=True), steps=1)


def _require_bf16() -> None:
    compiled = kernels.native()
    if compiled is None or not compiled.computes(torch.bfloat16):
        pytest.skip("no kernels for bf16 on this processor")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Folded", "SeveralOutputs"])
@pytest.mark.parametrize("training", [True, False])
def test_networks_without_gates_in_bf16(name: str, training: bool) -> None:
    _require_bf16()
    torch.manual_seed(2)
    same(NETWORKS[name]().train(training), random_images(16, 3, 9, 7), autocast=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", FOREIGN)
def test_other_peoples_networks_compute_what_they_say(name: str) -> None:
    torch.manual_seed(2)
    same(without_dropout(FOREIGN[name]().train()), random_images(4, 3, 32, 32), steps=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize(("training", "autocast"), [(True, False), (True, True), (False, False)])
def test_named_networks_compute_what_they_say(name: str, autocast: bool, training: bool) -> None:
    """Also as they look after some training, when norms' scales and statistics are no longer 1 and 0."""
    if autocast:
        _require_bf16()
    torch.manual_seed(4)
    model = without_dropout(NAMED[name]()).train(training)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
            nn.init.uniform_(module.running_mean, -0.5, 0.5)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    size = 32 if name == "base" else 16
    same(model, random_images(6, 3, size, size, channels_last=True), autocast=autocast, steps=1)


def test_dropout_is_drawn_anew_at_each_pass_and_follows_pytorchs_seed() -> None:
    model = nn.Sequential(pointwise(3, 8), nn.MaxPool2d(2), nn.Dropout(0.5), pointwise(8, 4), nn.Dropout(0.3))
    network, x = accelerate(model), random_images(4, 3, 8, 8)
    torch.manual_seed(1)
    first, second = network(x), network(x)
    torch.manual_seed(1)
    assert torch.equal(network(x), first)
    assert not torch.equal(first, second)
    assert float((first == 0).double().mean()) == pytest.approx(0.3, abs=0.06)
    model.eval()
    assert torch.equal(network(x), network(x))
    torch.testing.assert_close(network(x), model(x))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_network_of_another_type_is_left_to_pytorch(dtype: torch.dtype) -> None:
    model, x = plain_network().to(dtype), random_images(2, 3, 6, 6).to(dtype)
    with operators() as replaced:
        torch.testing.assert_close(accelerate(model)(x), model(x))
    assert "stage" not in replaced


def test_a_precision_without_kernels_is_left_to_pytorch() -> None:
    model, x = plain_network(), random_images(2, 3, 6, 6)
    network = accelerate(model)
    with torch.autocast("cpu", torch.float16):
        torch.testing.assert_close(network(x), model(x))


@pytest.mark.parametrize(
    ("layers", "size"),
    [([pointwise(3, 8), depthwise(16)], 6), ([pointwise(3, 8), nn.BatchNorm2d(8)], 1)],
    ids=str,
)
def test_layers_that_do_not_fit_raise_as_in_pytorch(layers: list[nn.Module], size: int) -> None:
    model, images = nn.Sequential(*layers), random_images(1, 3, size, size)
    with pytest.raises((RuntimeError, ValueError)) as by_pytorch:
        model(images)
    with pytest.raises(
        (RuntimeError, ValueError), match=str(by_pytorch.value)[:20].replace("(", ".").replace("[", ".")
    ):
        accelerate(model)(images)


def test_an_exception_leaves_the_network_usable() -> None:
    model = plain_network()
    network = accelerate(model)
    with pytest.raises(RuntimeError):
        network(random_images(2, 4, 6, 6))
    torch.testing.assert_close(
        network(random_images(2, 3, 6, 6)), model(random_images(2, 3, 6, 6)), rtol=1e-4, atol=1e-5
    )


def test_single_images_and_none_at_all() -> None:
    model = nn.Sequential(pointwise(3, 8), nn.ReLU(), depthwise(8), nn.MaxPool2d(2))
    for images in (random_images(3, 6, 6), random_images(0, 3, 6, 6)):
        torch.testing.assert_close(accelerate(model)(images), model(images), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("training", [True, False])
def test_without_gradients(context: Callable[[], Any], training: bool) -> None:
    torch.manual_seed(0)
    model = plain_network().train(training)
    plain, network, x = copy.deepcopy(model), accelerate(model), random_images(4, 3, 6, 6)
    with context():
        y, right = network(x), plain(x)
    assert not y.requires_grad
    assert y.is_inference() == right.is_inference()
    torch.testing.assert_close(y, right, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.state_dict(), plain.state_dict(), rtol=1e-4, atol=1e-5)
    # And then with gradients again, of the same network.
    assert network(x).requires_grad


@pytest.mark.slow
def test_other_arguments_reach_the_network() -> None:
    model, x = MoreArguments(), random_images(2, 3, 6, 6)
    network: Any = accelerate(model)
    torch.testing.assert_close(network(x), model(x), rtol=1e-4, atol=1e-5)
    mask = torch.arange(6.0)
    torch.testing.assert_close(network(x, mask), model(x, mask), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(network(x=x, scale=3.0), model(x, scale=3.0), rtol=1e-4, atol=1e-5)
    assert isinstance(network(x, features=True), tuple)
    with pytest.raises(TypeError):
        network()


@pytest.mark.slow
def test_outputs_are_as_the_network_returns_them() -> None:
    model, x = NETWORKS["SeveralOutputs"](), random_images(2, 3, 6, 6)
    own, plain = accelerate(model)(x), model(x)
    assert kinds(own) == kinds(plain)
    assert type(own[1][1]) is list
    assert type(own[2]) is dict
    for channels_last in (False, True):
        y = accelerate(plain_network())(random_images(2, 3, 6, 6, channels_last=channels_last))
        assert y.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def test_networks_with_nothing_to_win_are_pytorchs_without_a_word(capfd: pytest.CaptureFixture[str]) -> None:
    model, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.GELU()), random_images(2, 3, 6, 6)
    with operators() as replaced:
        assert torch.equal(accelerate(model)(x), model(x))
    assert not replaced
    assert capfd.readouterr().err == ""


@pytest.mark.slow
def test_layers_left_to_pytorch_are_said_with_the_reason(capfd: pytest.CaptureFixture[str]) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.MaxPool2d(3, 2))
    network = accelerate(model)
    for size in (9, 10):
        network(random_images(2, 3, size, size))
    said = "layers that PyTorch computes, not sepnet's kernels: 1 × conv2d 3×3, groups 1, 1 × "
    assert capfd.readouterr().err.count(said) == 1


def test_a_model_and_its_compiled_twin_share_their_weights_and_can_be_copied() -> None:
    model, x = plain_network(), random_images(2, 3, 6, 6)
    network: Any = accelerate(model)
    y = network(x)
    torch.testing.assert_close(pickle.loads(pickle.dumps(model))(x), y, rtol=1e-4, atol=1e-5)
    twin: Any = copy.deepcopy(network)
    with torch.no_grad():
        model.get_parameter("0.weight").zero_()
    assert not torch.equal(network(x), y)
    assert torch.equal(twin(x), y)


def test_without_kernels_a_network_is_itself_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SEPNET_KERNELS", "none")
    kernels._find.cache_clear()
    try:
        model, x = plain_network(), random_images(2, 3, 6, 6)
        assert sepnet.compile(model) is model
        assert torch.equal(accelerate(model)(x), model(x))
    finally:
        monkeypatch.undo()
        kernels._find.cache_clear()
    assert capfd.readouterr().err == "computing with PyTorch alone: SEPNET_KERNELS=none\n"
