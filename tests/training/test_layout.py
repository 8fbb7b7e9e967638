"""Networks that view images as rows, as PyTorch's tutorials do, train in its default memory format."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sepnet
from sepnet.backend import native
from sepnet.inference import classifier
from sepnet.training.forward import lay_out
from tests.training.support import CLASSES, patterns, tiny


class AfterPooling(nn.Module):
    def __init__(self, features: int = 36) -> None:
        super().__init__()
        self.conv, self.pool, self.fc = nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.Linear(features, len(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.pool(self.conv(x).relu()).view(-1, 36))
        return logits


class AfterConvolution(AfterPooling):
    def __init__(self) -> None:
        super().__init__(144)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.conv(x).view(x.shape[0], -1))
        return logits


class Flattened(AfterPooling):
    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(torch.flatten(self.pool(self.conv(x).relu()), 1))
        return logits


class Reshaped(AfterPooling):
    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.pool(self.conv(x).relu()).reshape(x.shape[0], -1))
        return logits


class Rows(torch.autograd.Function):
    """Fails in the backward pass alone, where the gradient does not lie in rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        return slope.view(-1).view(slope.shape)


class InBackward(AfterPooling):
    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.pool(Rows.apply(self.conv(x)).relu()).flatten(1))
        return logits


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # Dynamo's own
@pytest.mark.parametrize("kernels", [True, False], ids=["kernels", "pytorch"])
@pytest.mark.parametrize("kind", [AfterPooling, AfterConvolution, Flattened, Reshaped, InBackward])
def test_a_network_of_the_tutorials_trains(
    kind: type[nn.Module], kernels: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kernels:
        monkeypatch.setattr(native, "native", lambda: None)
    model = kind()
    before = copy.deepcopy(model.state_dict())
    run = sepnet.train(model, patterns(), epochs=1, out=tmp_path, device="cpu", precision="fp32")
    assert all(not torch.equal(before[name], tensor) for name, tensor in run.weights().items())
    logits = classifier.Classifier(run, model).logits(patterns().test.images)
    assert torch.equal(logits, run.logits()[0])


@pytest.mark.parametrize(
    ("model", "layout"),
    [
        (tiny(), torch.channels_last),
        (Flattened(), torch.channels_last),
        (AfterPooling(), torch.contiguous_format),
        (InBackward(), torch.contiguous_format),
    ],
)
def test_channels_last_unless_the_network_fails_in_it(model: nn.Module, layout: torch.memory_format) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    moved, found = lay_out(model, (3, 8, 8), torch.device("cpu"))
    assert moved is model
    assert found == layout
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
