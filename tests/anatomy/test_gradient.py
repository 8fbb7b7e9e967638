"""The receptive field of random networks against the support of a gradient."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from torch import nn

from sepnet.anatomy import Anatomy, Layer, trace

from .random_networks import CHANNELS, classifiers, features
from .support import gradient_support, make_positive, summing_max_pools, unit

IMAGE = (CHANNELS, 72, 64)
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
SLOW = settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))


def accepts_the_image(model: nn.Module) -> bool:
    """Say whether the image is large enough for all the strides and windows drawn."""
    try:
        model(torch.zeros(1, *IMAGE, dtype=next(model.parameters(), torch.zeros(())).dtype))
    except RuntimeError:
        return False
    return True


def a_unit_well_inside(layer: Layer, size: Sequence[int]) -> list[tuple[int, int, int]] | None:
    """Return, per axis, a unit's index and the pixels it should see, unless some lie outside the image."""
    found = []
    for pixels, units, start, jump, field in zip(
        IMAGE[1:], size, layer.start, layer.jump, layer.receptive_field, strict=True
    ):
        middle = (pixels - field) // 2 - start
        index = min(max(round(middle / jump), 0), units - 1)
        low = start + jump * index
        if low < 0 or low + field > pixels:
            return None
        found.append((index, low, low + field - 1))
    return found


def every_map_covers(anatomy: Anatomy, lows: list[int], highs: list[int]) -> bool:
    """Say whether no layer on the way has cut off, by a stride or a slice, pixels from ``lows`` to ``highs``."""
    return all(
        start <= low and high < start + field + (units - 1) * jump
        for layer in anatomy.layers
        if len(layer.output) == 3
        for start, field, jump, units, low, high in zip(
            layer.start, layer.receptive_field, layer.jump, layer.output[1:], lows, highs, strict=True
        )
    )


@pytest.mark.slow
@SLOW
@given(model=features())
def test_inner_unit_sees_exactly_its_interval(model: nn.Module) -> None:
    make_positive(model)
    assume(accepts_the_image(model))
    anatomy = trace(model, IMAGE)
    image = torch.rand(1, *IMAGE, dtype=torch.float64).requires_grad_()
    with summing_max_pools():
        output = model(image)
    place = a_unit_well_inside(anatomy.layers[-1], output.shape[2:])
    assume(place is not None)
    assert place is not None
    (row, top, bottom), (column, left, right) = place
    assume(every_map_covers(anatomy, [top, left], [bottom, right]))
    assert gradient_support(unit(output, row, column), image) == ((top, bottom), (left, right))


@pytest.mark.slow
@settings(SLOW, max_examples=30)
@given(model=classifiers())
def test_classifier_sees_the_hull_of_all_positions(model: nn.Module) -> None:
    make_positive(model)
    layer = trace(model, IMAGE).layers[-1]
    assert layer.jump == (0, 0)
    image = torch.rand(1, *IMAGE, dtype=torch.float64).requires_grad_()
    expected = tuple(
        (start, start + field - 1) for start, field in zip(layer.start, layer.receptive_field, strict=True)
    )
    assert expected == ((0, IMAGE[1] - 1), (0, IMAGE[2] - 1))
    assert gradient_support(model(image), image) == expected


@pytest.mark.slow
@settings(SLOW, max_examples=30)
@given(model=features())
def test_columns_add_up_to_the_whole_model(model: nn.Module) -> None:
    assume(accepts_the_image(model))
    document = trace(model, IMAGE).to_dict()
    rows, totals = document["layers"], document["totals"]
    buffers = sum(buffer.numel() for buffer in model.buffers() if buffer.is_floating_point())
    for column in ("trainable", "non_trainable", "macs"):
        assert sum(row[column] for row in rows) == totals[column]
    assert totals["trainable"] == sum(parameter.numel() for parameter in model.parameters())
    assert totals["non_trainable"] == buffers
    assert totals["parameters"] == totals["trainable"] + totals["non_trainable"]
