"""What a layer keeps for the backward pass, against what PyTorch's own hooks say of a real training step."""

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from sepnet.anatomy import trace
from sepnet.networks import NETWORKS, build

from .foreign import FOREIGN


def really_kept(model: nn.Module, image: Tensor) -> int:
    """Return the bytes that autograd saves in a forward pass in training mode, each memory once, weights left out."""
    known = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    saved: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in known:
            saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        model.train()(image)
    return sum(tensor.untyped_storage().nbytes() for tensor in saved.values())


@pytest.mark.parametrize("name", [*NETWORKS, *FOREIGN])
def test_bytes_are_those_of_a_training_step(name: str) -> None:
    shape = (3, 32, 32)
    model = build(name, image_shape=shape) if name in NETWORKS else FOREIGN[name]()
    assert trace(model, shape).kept_for_backward == really_kept(model, torch.rand(1, *shape))


def test_each_layer_keeps_what_its_derivative_needs() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.5), nn.Flatten())
    image, features, pooled = 3 * 12 * 12 * 4, 8 * 10 * 10 * 4, 8 * 5 * 5 * 4
    kept = [layer.kept_for_backward for layer in trace(model, (3, 12, 12)).layers]
    assert kept == [image, features, pooled // 4 * 8, pooled, 0]


class HalfOfIt(nn.Module):
    """A network that sets its own precision, and trains its end alone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.dense = nn.Conv2d(3, 4, 3), nn.Sequential(nn.Linear(4, 10), nn.Linear(10, 5))

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            features = self.conv(x)
        with torch.autocast("cpu", torch.bfloat16):
            logits: Tensor = self.dense(features.mean((2, 3)))
        return logits.float()


def test_autocast_and_no_grad_of_a_network_s_own_count() -> None:
    model, inputs, weight = HalfOfIt(), (4 + 10) * 2, 10 * 5 * 2
    assert trace(model, (3, 12, 12)).kept_for_backward == inputs + weight
    assert really_kept(model, torch.rand(1, 3, 12, 12)) == inputs + weight
