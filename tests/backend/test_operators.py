"""The operators as PyTorch sees them: registration, tracing, counting, and their plain fallback."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import FlopCounterMode

from sepnet.backend import library
from sepnet.backend import native as kernels
from sepnet.backend.pool import Params as PoolParams
from sepnet.backend.stage import RELU, Inputs, Params

from . import support
from .support import Draw, error, needs_kernels, stage_reference

SAME = Params(padding=(1, 1), activation=RELU)


def _inputs(dtype: torch.dtype = torch.float32, *, numbers: torch.dtype = torch.float32) -> Inputs:
    """Return a whole stage: 5 channels to 7, 3×3."""
    draw = Draw(3)
    return Inputs(
        draw.signed(2, 5, 6, 4).to(dtype).requires_grad_(),
        torch.stack([draw.between(0.8, 1.2, 5), draw.between(-0.1, 0.1, 5)]).to(numbers).requires_grad_(),
        draw.between(-0.1, 0.1, 2, 5, 6, 4).to(dtype).requires_grad_(),
        draw.between(-1, 1, 5, 1, 3, 3).to(numbers).requires_grad_(),
        draw.between(-1, 1, 7, 5, 1, 1).to(numbers).requires_grad_(),
        draw.between(-1, 1, 7).to(numbers).requires_grad_(),
    )


def _sums() -> Tensor:
    return torch.tensor([[5.0, -3.0], [9.0, 4.0]], dtype=torch.float64, requires_grad=True)


PARTS = {
    "all": _inputs(),
    "depthwise": _inputs()._replace(pointwise=None, bias=None, residual=None),
    "pointwise": _inputs()._replace(depthwise=None, coefficients=None),
}


@pytest.mark.slow
@needs_kernels
@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("wanted", [(True, True, True), (False, False, True), (True, False, False)])
def test_the_stage_is_registered_as_pytorch_asks(parts: str, wanted: tuple[bool, bool, bool]) -> None:
    inputs = PARTS[parts]
    params = SAME if inputs.depthwise is not None else SAME._replace(padding=(0, 0))
    torch.library.opcheck(torch.ops.sepnet.stage.default, (*inputs, *params, *wanted))


@pytest.mark.slow
@needs_kernels
def test_the_other_operators_are_registered_as_pytorch_asks() -> None:
    ops, seed = torch.ops.sepnet, torch.tensor(7)
    params = PoolParams((2, 2), False, False, RELU, 0.3)
    torch.library.opcheck(ops.pool.default, (*_inputs()[:3], seed, *params))
    for vector in (torch.ones(2, requires_grad=True), None):
        for statistics in (torch.ones(2), None):
            torch.library.opcheck(ops.norm.default, (_sums(), vector, vector, statistics, statistics, 10, 1e-5, 0.1))
    detached = [None if part is None else part.detach() for part in _inputs()]
    y, sums, middle, kept = ops.stage(*detached, *SAME, True, True, True)
    grads = (torch.ones_like(y), torch.ones_like(sums), torch.ones_like(kept), True)
    torch.library.opcheck(ops.stage_backward.default, (*detached, *SAME, y, middle, *grads))
    pooled = ops.pool(*detached[:3], seed, *params)
    torch.library.opcheck(ops.pool_backward.default, (*detached[:3], seed, *params, pooled, False))
    sums = _sums().detach()
    coefficients, moments, _, _ = ops.norm(sums, None, None, None, None, 10, 1e-5, 0.1)
    torch.library.opcheck(ops.norm_backward.default, (sums, None, None, 10, 1e-5, moments, coefficients))


def _stage(inputs: Inputs) -> Tensor:
    return support.stage(inputs, SAME)[0]


def test_a_trace_holds_the_operator_and_computes_the_same() -> None:
    inputs = _detached()
    graph = make_fx(_stage, tracing_mode="fake")(inputs)
    assert torch.ops.sepnet.stage.default in {node.target for node in graph.graph.nodes}
    torch.testing.assert_close(graph(inputs), _stage(inputs))


def test_an_export_holds_the_operator_and_computes_the_same() -> None:
    class Network(nn.Module):
        def forward(self, inputs: Inputs) -> Tensor:
            return _stage(inputs)

    inputs = _detached()
    program = torch.export.export(Network(), (inputs,))
    assert torch.ops.sepnet.stage.default in {node.target for node in program.graph.nodes}
    torch.testing.assert_close(program.module()(inputs), _stage(inputs))


def _detached() -> Inputs:
    return Inputs(*(None if part is None else part.detach() for part in _inputs()))  # type: ignore[arg-type]


@needs_kernels
@pytest.mark.parametrize("parts", PARTS)
def test_operations_are_counted_as_for_pytorchs_convolutions(parts: str) -> None:
    inputs = PARTS[parts]
    params = Params(padding=(1, 1), stride=(2, 1)) if inputs.depthwise is not None else Params()

    def count(compute: Callable[[Inputs, Params], Any]) -> tuple[int, int]:
        with FlopCounterMode(display=False) as counter:
            y = compute(inputs, params)[0]
            forward = counter.get_total_flops()
            y.sum().backward()
        return forward, counter.get_total_flops() - forward

    forward, backward = count(support.stage)
    assert forward == count(stage_reference)[0] > 0
    # Each multiplication once for the weights' gradient and once for the input's. PyTorch 2.13 counts a depthwise
    # layer's weight gradient as if its channels were not apart.
    assert backward == 2 * forward
    if inputs.depthwise is None:
        assert backward == count(stage_reference)[1]


@needs_kernels
def test_operations_of_the_first_stage_leave_out_the_images_gradient() -> None:
    inputs = _inputs()._replace(coefficients=None, residual=None)
    inputs = inputs._replace(x=inputs.x.detach())
    with FlopCounterMode(display=False) as counter:
        y = support.stage(inputs, SAME)[0]
        forward = counter.get_total_flops()
        y.sum().backward()
    positions = 2 * 6 * 4
    assert counter.get_total_flops() - forward == 2 * forward - 2 * positions * 5 * 9


@pytest.fixture
def _without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "native", lambda: None)


def _everything(inputs: Inputs) -> list[Tensor]:
    """Return what a stage, a norm and a pool give one after the other, and all gradients."""
    leaves = [part for part in inputs if part is not None]
    y, sums, kept = support.stage(inputs, SAME._replace(relu_out=True), with_sums=True, with_given=True)
    vectors = [torch.full((7,), value, requires_grad=True) for value in (1.5, 0.5)]
    statistics = [torch.zeros(7), torch.ones(7)]
    coefficients, _, *moved = torch.ops.sepnet.norm(sums, *vectors, *statistics, 48, 1e-3, 0.1)
    z = support.pool(Inputs(y, coefficients), PoolParams((2, 2), True, False, RELU, 0.25), 9)
    total = (z * torch.arange(3 * 2).view(3, 2)).sum() + kept.sum()
    return [y, sums, kept, coefficients, *moved, z, *torch.autograd.grad(total, [*leaves, *vectors])]


@needs_kernels
def test_without_kernels_the_operators_compute_the_same(request: pytest.FixtureRequest) -> None:
    by_kernels = _everything(_inputs())
    request.getfixturevalue("_without_kernels")
    for own, plain in zip(by_kernels, _everything(_inputs()), strict=True):
        assert own.dtype == plain.dtype
        assert error(own.detach(), plain.detach()) < 1e-5


@pytest.mark.slow
@pytest.mark.usefixtures("_without_kernels")
def test_the_references_gradients_are_those_of_finite_differences() -> None:
    exact = _inputs(torch.float64, numbers=torch.float64)

    def outputs(*parts: Tensor) -> Any:
        return support.stage(Inputs(*parts), SAME, with_sums=True, with_given=True)

    parts: Any = tuple(exact)
    assert torch.autograd.gradcheck(outputs, parts)
    for average in (False, True):
        params = PoolParams((2, 3), average, True, RELU, 0.25)
        compute = functools.partial(_pooled, params)
        assert torch.autograd.gradcheck(compute, parts[:3])


def _pooled(params: PoolParams, *parts: Tensor) -> Tensor:
    return support.pool(Inputs(*parts), params, 9)


def test_float64_is_computed_in_float64() -> None:
    exact = _inputs(torch.float64, numbers=torch.float64)
    for found, right in zip(support.stage(exact, SAME, with_sums=True), stage_reference(exact, SAME), strict=True):
        assert torch.equal(found, right) or not found.numel()


@needs_kernels
@pytest.mark.parametrize("layout", ["contiguous", "channels last", "transposed", "every second", "one for all images"])
def test_any_memory_layout_is_taken(layout: str) -> None:
    inputs, x = _inputs(), _inputs().x.detach()
    lay: dict[str, Callable[[Tensor], Tensor]] = {
        "contiguous": Tensor.contiguous,
        "channels last": functools.partial(Tensor.contiguous, memory_format=torch.channels_last),
        "transposed": lambda t: t.transpose(2, 3).contiguous().transpose(2, 3),
        "every second": lambda t: t.repeat_interleave(2, 3)[..., ::2],
        "one for all images": lambda t: t[:1].expand(2, -1, -1, -1),
    }
    laid = lay[layout](x).requires_grad_()
    y = support.stage(inputs._replace(x=laid), SAME)[0]
    right = stage_reference(inputs._replace(x=laid), SAME)[0]
    assert error(y.detach(), right.detach()) < 1e-5
    grad = torch.randn(7, 2, 6, 4).transpose(0, 1)
    assert error(torch.autograd.grad(y, laid, grad)[0], torch.autograd.grad(right, laid, grad)[0]) < 1e-5


def test_kernels_are_found_where_they_were_compiled() -> None:
    compiled = kernels.native()
    assert compiled is None or compiled.computes(torch.float32)
    assert compiled is None or not compiled.computes(torch.float16)
