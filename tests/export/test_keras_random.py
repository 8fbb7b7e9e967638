"""Random networks: each is written so that Keras gives the same, or refused in one line."""

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import nn

from tests.anatomy.random_networks import CHANNELS, classifiers, features, residual_classifiers

from .support import assert_same, randomize, refusal

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # of Keras
    pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning"),  # of PyTorch, for even kernels
]

REFUSALS = (
    "of which Keras takes only one at a time",
    "divide by a count that Keras does not",
    "returns its image unchanged",
)
IMAGES = st.tuples(st.just(CHANNELS), st.integers(16, 33), st.integers(16, 33))
few = settings(max_examples=40, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))


def same_or_refused(model: nn.Module, image_shape: tuple[int, int, int]) -> None:
    try:
        with torch.no_grad():
            assume(model.eval()(torch.zeros(1, *image_shape)).numel() > 0)
    except RuntimeError:  # the image has become smaller than a window
        assume(False)
    reason = refusal(randomize(model), image_shape)
    assert not reason or any(known in reason for known in REFUSALS), reason


@pytest.mark.slow
@few
@given(features(), IMAGES)
def test_random_features(model: nn.Module, image_shape: tuple[int, int, int]) -> None:
    same_or_refused(model, image_shape)


@pytest.mark.slow
@few
@given(classifiers(), IMAGES)
def test_random_classifiers(model: nn.Module, image_shape: tuple[int, int, int]) -> None:
    same_or_refused(model, image_shape)


@pytest.mark.slow
@few
@given(residual_classifiers(), IMAGES)
def test_random_residual_networks(model: nn.Module, image_shape: tuple[int, int, int]) -> None:
    with torch.no_grad():
        model.eval()(torch.zeros(2, *image_shape))
    assert_same(randomize(model), image_shape)
