# mypy: disable-error-code="operator"
# A module's attributes, which the networks here are made of, are modules or tensors to mypy.
"""Accelerated networks compute what the same networks do in plain PyTorch and float64."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.utils.prune
from torch import nn

from sepnet.kernels.accelerate import Accelerated, accelerate
from sepnet.kernels.follow import is_called_whole
from sepnet.kernels.native import native
from tests.anatomy.foreign import FOREIGN

from .comparing import NAMED, kinds, plain_network, random_images, same, without_dropout
from .networks import NETWORKS, MoreArguments, depthwise, pointwise
from .support import needs_kernels

pytestmark = [
    needs_kernels,
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel"),
]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_odd_networks_compute_what_they_say(name: str, training: bool) -> None:
    torch.manual_seed(2)
    model = NETWORKS[name]().train(training)
    same(model, random_images(4, 3, 9, 7))
    same(model, random_images(1, 3, 8, 8))


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "Viewed"])
def test_odd_networks_compute_what_they_say_of_channels_last(name: str) -> None:
    torch.manual_seed(2)
    same(NETWORKS[name](), random_images(4, 3, 9, 7, channels_last=True))


@pytest.mark.parametrize("name", ["Folded", "Paddings", "SeveralOutputs", "InputUsedOften", "BuffersAndParameters"])
@pytest.mark.parametrize("training", [True, False])
def test_networks_without_gates_in_bf16(name: str, training: bool) -> None:
    compiled = native()
    if compiled is None or not compiled.computes(torch.bfloat16):
        pytest.skip("no kernels for bf16 on this processor")
    torch.manual_seed(2)
    same(NETWORKS[name]().train(training), random_images(16, 3, 9, 7), autocast=True)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", [name for name in FOREIGN if name != "LeNet"])
def test_other_peoples_networks_compute_what_they_say(name: str, training: bool) -> None:
    torch.manual_seed(2)
    model = FOREIGN[name]().train(training)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    same(model, random_images(4, 3, 32, 32))


def test_a_network_that_counts_its_own_sizes_is_left_alone() -> None:
    model = FOREIGN["LeNet"]()
    assert accelerate(model) is model


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("training", [True, False])
def test_named_networks_compute_what_they_say(name: str, autocast: bool, training: bool) -> None:
    """Also as they look after some training, when norms' scales and statistics are no longer 1 and 0."""
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
    model = plain_network().to(dtype)
    assert torch.equal(
        accelerate(model)(random_images(2, 3, 6, 6).to(dtype)), model(random_images(2, 3, 6, 6).to(dtype))
    )
    network = accelerate(plain_network())
    assert isinstance(network, Accelerated)
    network.model.to(dtype)
    assert network(random_images(2, 3, 6, 6).to(dtype)).dtype == dtype


def test_a_precision_without_kernels_is_left_to_pytorch() -> None:
    model, x = plain_network(), random_images(2, 3, 6, 6)
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
    model = plain_network()
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
    model, images = nn.Sequential(*layers), random_images(1, 3, size, size)
    with pytest.raises((RuntimeError, ValueError)) as by_pytorch:
        model(images)
    with pytest.raises(by_pytorch.type, match=str(by_pytorch.value)[:20].replace("(", ".").replace("[", ".")):
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


def test_other_arguments_reach_the_network() -> None:
    model, x = MoreArguments(), random_images(2, 3, 6, 6)
    network: Any = accelerate(model)
    torch.testing.assert_close(network(x), model(x), rtol=1e-4, atol=1e-5)
    mask = torch.arange(6.0)
    assert torch.equal(network(x, mask), model(x, mask))
    assert torch.equal(network(x=x, scale=3.0), model(x, scale=3.0))
    assert isinstance(network(x, features=True), tuple)
    with pytest.raises(TypeError):
        network()


def test_outputs_are_as_the_network_returns_them() -> None:
    model, x = NETWORKS["SeveralOutputs"](), random_images(2, 3, 6, 6)
    own, plain = accelerate(model)(x), model(x)
    assert kinds(own) == kinds(plain)
    assert type(own[1][1]) is list
    assert type(own[2]) is dict
    for channels_last in (False, True):
        y = accelerate(plain_network())(random_images(2, 3, 6, 6, channels_last=channels_last))
        assert y.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def test_networks_with_nothing_to_win_are_themselves_without_a_word(capfd: pytest.CaptureFixture[str]) -> None:
    models = [
        nn.Linear(3, 3),
        depthwise(3),
        nn.Sequential(),
        nn.Sequential(nn.Flatten(), nn.Linear(3, 3), nn.Tanh()),
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.GELU()),
        nn.DataParallel(plain_network()),
        nn.TransformerEncoderLayer(8, 2, batch_first=True),
    ]
    for model in models:
        assert accelerate(model) is model
    assert capfd.readouterr().err == ""


def test_a_network_on_another_device_is_itself() -> None:
    model = plain_network().to("meta")
    assert accelerate(model) is model


def test_the_model_is_left_as_it_was() -> None:
    model = nn.Sequential(plain_network(), NETWORKS["Written"]())
    before = {name: set(vars(module)) for name, module in model.named_modules()}
    modes = [module.training for module in model.modules()]
    network = accelerate(nn.Sequential(plain_network()))
    accelerate(model)
    network(random_images(2, 3, 6, 6))
    assert before == {name: set(vars(module)) for name, module in model.named_modules()}
    assert modes == [module.training for module in model.modules()]


def test_models_and_accelerated_ones_can_be_copied_and_pickled() -> None:
    model, x = plain_network(), random_images(2, 3, 6, 6)
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


def test_without_kernels_a_network_is_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEPNET_KERNELS", "none")
    from sepnet.kernels.native import _find

    _find.cache_clear()
    try:
        model = plain_network()
        assert accelerate(model) is model
    finally:
        monkeypatch.undo()
        _find.cache_clear()


def test_the_graph_follows_only_modules_that_hold_others() -> None:
    assert is_called_whole(nn.Linear(2, 2))
    assert is_called_whole(nn.Sequential())
    assert not is_called_whole(nn.Sequential(nn.Linear(2, 2)))
    assert is_called_whole(nn.DataParallel(nn.Linear(2, 2)))
