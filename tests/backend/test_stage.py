"""``sepnet::stage`` against its reference in float64, forward and every gradient, on random shapes."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st
from torch import Tensor

from sepnet.backend.stage import ACTIVATIONS, RELU, Inputs, Params

from .support import RANDOM, TOLERANCE, Draw, error, stage
from .support import stage_reference as reference


@dataclass(frozen=True)
class Case:
    """One stage's shapes and parts."""

    images: int = 2
    channels: int = 20
    size: tuple[int, int] = (9, 7)
    kernel: tuple[int, int] | None = (3, 3)
    out_channels: int | None = 40
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    affine: bool = True
    residual: bool = False
    activation: int = RELU
    relu_out: bool = False
    bias: bool = False
    with_sums: bool = True
    with_given: bool = False
    seed: int = 0

    @property
    def params(self) -> Params:
        return Params(self.stride, self.padding, self.dilation, self.activation, self.relu_out)

    def parts(self, draw: Draw, dtype: torch.dtype) -> Inputs:
        """Return inputs in float64 that are numbers of ``dtype``.

        An element's first ReLU is open or closed by at least 0.1, so that rounding to bf16 cannot turn it: a gate
        that turns where a value is near 0 changes gradients by their whole size, and is no error of the kernels.
        In bf16 all else is positive, because a sum of few values may cancel, and nothing be left but rounding.
        """
        shape = (self.images, self.channels, *self.size)
        exact = dtype == torch.float32
        low, positive = (-0.5, 0.7) if exact else (0.2, 1.0)
        coefficients = torch.stack([draw.between(0.8, 1.2, self.channels), draw.between(-0.15, 0.15, self.channels)])
        out = self.channels if self.out_channels is None else self.out_channels
        parts = Inputs(
            draw.signed(*shape, positive=0.7 if self.activation == RELU else positive).to(dtype),
            coefficients if self.affine else None,
            draw.between(-0.15, 0.15, *shape).to(dtype) if self.residual else None,
            None if self.kernel is None else draw.between(low, 1, self.channels, 1, *self.kernel),
            None if self.out_channels is None else draw.between(low, 1, out, self.channels, 1, 1),
            draw.between(low, 1, out) - 1e4 * self.relu_out * (draw.between(0, 1, out) < 0.3) if self.bias else None,
        )
        return Inputs(*(None if part is None else part.double() for part in parts))  # type: ignore[arg-type]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    deep, wide = draw(st.sampled_from([(True, True), (True, False), (False, True)]))
    pair = st.tuples(st.integers(1, 2), st.integers(1, 2))
    square = st.sampled_from([3, 5, 7, 9]).map(lambda size: (size, size))
    kernel = draw(square | st.tuples(st.integers(1, 9), st.integers(1, 9))) if deep else None
    dilation = draw(st.just((1, 1)) | pair) if kernel else (1, 1)
    reach = [d * (k - 1) for d, k in zip(dilation, kernel or (1, 1), strict=True)]
    half = (reach[0] // 2, reach[1] // 2)
    padding = draw(st.just(half) | st.tuples(*(st.integers(0, r) for r in reach)))
    size = draw(st.tuples(st.integers(1, 19), st.integers(1, 19)))
    assume(all(s + 2 * p > r for s, p, r in zip(size, padding, reach, strict=True)))
    channels = st.sampled_from([1, 2, 3, 8, 15, 16, 17, 32, 33, 48])
    return Case(
        images=draw(st.integers(1, 5)),
        channels=draw(channels),
        size=size,
        kernel=kernel,
        out_channels=draw(channels | st.sampled_from([10, 64, 80, 112])) if wide else None,
        stride=draw(st.just((1, 1)) | pair) if kernel else (1, 1),
        padding=padding,
        dilation=dilation,
        affine=draw(st.booleans()),
        residual=draw(st.booleans()),
        activation=draw(st.sampled_from(range(len(ACTIVATIONS)))),
        relu_out=draw(st.booleans()),
        bias=draw(st.booleans()),
        with_sums=draw(st.booleans()),
        with_given=draw(st.booleans()),
        seed=draw(st.integers(0, 2**31)),
    )


def _as_given(exact: Inputs, dtype: torch.dtype) -> Inputs:
    """Return what a stage is given in training: images in ``dtype``, all else in float32."""
    kinds = (dtype, torch.float32, dtype, torch.float32, torch.float32, torch.float32)
    return Inputs(*(None if part is None else part.to(kind) for part, kind in zip(exact, kinds, strict=True)))  # type: ignore[arg-type]


def expected(parts: Inputs, case: Case, open_: Tensor) -> dict[str, Tensor]:
    """Return what a stage means; its last ReLU is open where the kernel's was.

    What enters that ReLU may be as near to 0 as it likes, so that one of many gates does turn.
    """
    y, _, start = reference(parts, case.params._replace(relu_out=False))
    y = y * open_
    return {"y": y, "sums": torch.stack([y.sum((0, 2, 3)), y.square().sum((0, 2, 3))]), "given": start}


def check(case: Case, dtype: torch.dtype) -> dict[str, float]:
    """Return the error of each output and gradient."""
    draw = Draw(case.seed)
    exact = case.parts(draw, dtype)
    parts = {name: part for name, part in _as_given(exact, dtype)._asdict().items() if part is not None}
    leaves = {name: part.double().requires_grad_() for name, part in parts.items()}
    parts = {name: part.requires_grad_() for name, part in parts.items()}

    outputs = stage(Inputs(**parts), case.params, with_sums=case.with_sums, with_given=case.with_given)
    found = {name: tensor for name, tensor in zip(("y", "sums", "given"), outputs, strict=True) if tensor.numel()}
    right = expected(Inputs(**leaves), case, (outputs[0] > 0) if case.relu_out else torch.ones_like(outputs[0]))
    right = {name: right[name] for name in found}
    positive = 0.7 if dtype == torch.float32 else 1.0
    grads = {name: draw.signed(*tensor.shape, positive=positive).to(dtype) for name, tensor in found.items()}
    if "sums" in grads:
        grads["sums"] = grads["sums"] * torch.tensor([[0.1], [0.01]])

    errors = {name: error(found[name].detach(), right[name].detach()) for name in found}
    errors["gates"] = error(outputs[0].detach(), reference(exact, case.params)[0])
    by_kernel = torch.autograd.grad(
        [*found.values()], [*parts.values()], [grads[name].to(tensor.dtype) for name, tensor in found.items()]
    )
    by_reference = torch.autograd.grad([*right.values()], [*leaves.values()], [grads[name].double() for name in found])
    return errors | {f"grad_{name}": error(a, b) for name, a, b in zip(parts, by_kernel, by_reference, strict=True)}


@RANDOM
@given(case=cases())
@example(case=Case())
@example(case=Case(images=1, size=(1, 1), kernel=(1, 1), padding=(0, 0)))
@example(case=Case(kernel=(9, 9), padding=(4, 4), residual=True, bias=True, relu_out=True, with_given=True))
@example(case=Case(kernel=(4, 2), padding=(0, 1), stride=(2, 1), dilation=(1, 2), out_channels=None, size=(12, 11)))
@example(case=Case(kernel=None, padding=(0, 0), affine=False, activation=0, channels=3, out_channels=10))
def test_outputs_and_gradients_are_those_of_the_reference(case: Case, dtype: torch.dtype) -> None:
    errors = check(case, dtype)
    assert max(errors.values()) < TOLERANCE[dtype], errors


@pytest.mark.parametrize("parts", ["depthwise", "pointwise", "depthwise and pointwise"])
@pytest.mark.parametrize(("activation", "relu_out"), [*((kind, False) for kind in range(len(ACTIVATIONS))), (0, True)])
def test_what_is_not_a_number_stays_so(dtype: torch.dtype, parts: str, activation: int, relu_out: bool) -> None:
    """Or else a training that has come apart would go on with a finite loss."""
    case = Case(
        kernel=(3, 3) if "depthwise" in parts else None,
        padding=(1, 1) if "depthwise" in parts else (0, 0),
        out_channels=40 if "pointwise" in parts else None,
        activation=activation,
        relu_out=relu_out,
    )
    exact = case.parts(Draw(1), dtype)
    exact.x[0, 17, 4, 3] = torch.nan
    y, sums, _ = stage(_as_given(exact, dtype), case.params, with_sums=True)
    right = reference(exact, case.params)
    assert torch.equal(y.isnan(), right[0].isnan())
    assert torch.equal(sums.isnan(), right[1].isnan())


def test_the_gradient_of_what_is_not_a_number_is_none_either(dtype: torch.dtype) -> None:
    case = Case(kernel=None, padding=(0, 0), affine=False, activation=0, relu_out=True)
    parts = _as_given(case.parts(Draw(1), dtype), dtype)
    parts.x[0] = torch.nan
    assert parts.pointwise is not None
    y, _, _ = stage(parts._replace(pointwise=parts.pointwise.requires_grad_()), case.params)
    (grad,) = torch.autograd.grad(y.float().sum(), [parts.pointwise])
    assert grad.isnan().all()


def test_two_runs_give_the_same_bits(dtype: torch.dtype) -> None:
    case = Case(images=8, channels=33, out_channels=65, residual=True, bias=True, relu_out=True)
    parts = _as_given(case.parts(Draw(1), dtype), dtype)
    leaves = [part.requires_grad_() for part in parts if part is not None]
    runs = []
    for _ in range(3):
        y, sums, _ = stage(parts, case.params, with_sums=True)
        runs.append([y, sums, *torch.autograd.grad(y.float().sum() + sums.sum(), leaves)])
    for run in runs[1:]:
        assert all(map(torch.equal, run, runs[0]))


def test_the_variance_of_values_that_lie_close_together_is_not_lost() -> None:
    """As those of a pooled image over a small batch: the mean is a thousand standard deviations."""
    torch.manual_seed(0)
    x = (1 + torch.randn(4, 24, 1, 1) / 1000).contiguous(memory_format=torch.channels_last)
    inputs = Inputs(x, pointwise=torch.eye(24).view(24, 24, 1, 1))
    total, squares = stage(inputs, Params(padding=(0, 0)), with_sums=True)[1] / len(x)
    exact = x.double().var((0, 2, 3), unbiased=False)
    assert error(squares - total.square(), exact) < 1e-6
