"""The effective receptive field: within the theoretical one, exact where it is known, and the same by seed."""

import pytest
import torch
from torch import nn

from sepnet.anatomy import effective_receptive_field, trace
from sepnet.networks import build


@pytest.mark.slow
def test_energy_lies_within_the_theoretical_field_and_the_window_inside_it() -> None:
    model = build("resnet8")
    rows = {layer.name: layer for layer in trace(model).layers}
    found = effective_receptive_field(model, samples=1)
    assert len(found) >= len(rows) - 2
    for layer in found:
        assert abs(layer.energy_within - 1) < 1e-4
        assert layer.receptive_field == rows[layer.layer].receptive_field
        assert all(0 < a <= b for a, b in zip(layer.size, layer.receptive_field, strict=True))
    assert found == effective_receptive_field(model, samples=1)


def test_a_window_of_known_weights_has_its_known_effective_field() -> None:
    model = nn.Conv2d(1, 1, 9, padding=4, bias=False)
    weights = torch.full((9, 9), 1e-6)
    weights[3:6, 3:6] = 1.0
    with torch.no_grad():
        model.weight.copy_(weights.view(1, 1, 9, 9))
    (layer,) = effective_receptive_field(model, (1, 20, 20), samples=2)
    assert layer.size == (3, 3)
    with torch.no_grad():
        model.weight.fill_(1.0)
    (layer,) = effective_receptive_field(model, (1, 20, 20), samples=2)
    assert layer.size == (9, 9)
