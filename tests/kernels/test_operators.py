"""The operators as PyTorch sees them: registration, tracing, counting, and their plain fallback."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import FlopCounterMode

from sepnet.kernels import norm, pooling, stage
from sepnet.kernels.native import native
from sepnet.kernels.pooling import PoolForm
from sepnet.kernels.stage import RELU, Form, Given

from .support import Draw, error, needs_kernels

SAME = Form(padding=(1, 1), activation=RELU)


def _given(dtype: torch.dtype = torch.float32, *, numbers: torch.dtype = torch.float32) -> Given:
    """Return a whole stage: 5 channels to 7, 3×3."""
    draw = Draw(3)
    return Given(
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
    "all": _given(),
    "depthwise": _given()._replace(pointwise=None, bias=None, residual=None),
    "pointwise": _given()._replace(depthwise=None, coefficients=None),
}


@needs_kernels
@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("wanted", [(True, True, True), (False, False, True), (True, False, False)])
def test_the_stage_is_registered_as_pytorch_asks(parts: str, wanted: tuple[bool, bool, bool]) -> None:
    given = PARTS[parts]
    form = SAME if given.depthwise is not None else SAME._replace(padding=(0, 0))
    torch.library.opcheck(torch.ops.sepnet.stage.default, (*given, *form, *wanted))


@needs_kernels
def test_the_other_operators_are_registered_as_pytorch_asks() -> None:
    form = PoolForm((2, 2), False, RELU, 0.3, 7)
    torch.library.opcheck(torch.ops.sepnet.pool.default, (*_given()[:3], *form))
    weights = [torch.ones(2, requires_grad=True), None]
    for weight in weights:
        torch.library.opcheck(torch.ops.sepnet.norm.default, (_sums(), weight, weight, 10, 1e-5))
    detached = [None if part is None else part.detach() for part in _given()]
    y, sums, middle, kept = torch.ops.sepnet.stage(*detached, *SAME, True, True, True)
    slopes = (torch.ones_like(y), torch.ones_like(sums), torch.ones_like(kept), True)
    torch.library.opcheck(torch.ops.sepnet.stage_backward.default, (*detached, *SAME, y, middle, *slopes))
    pooled = torch.ops.sepnet.pool(*detached[:3], *form)
    torch.library.opcheck(torch.ops.sepnet.pool_backward.default, (*detached[:3], *form, pooled, False))
    sums = _sums().detach()
    coefficients, moments = torch.ops.sepnet.norm(sums, None, None, 10, 1e-5)
    torch.library.opcheck(torch.ops.sepnet.norm_backward.default, (sums, None, None, 10, 1e-5, moments, coefficients))


def _stage(x: Tensor) -> Tensor:
    return stage.stage(_given()._replace(x=x), SAME)[0]


def test_a_trace_holds_the_operator_and_computes_the_same() -> None:
    x = _given().x.detach()
    graph = make_fx(_stage, tracing_mode="fake")(x)
    assert torch.ops.sepnet.stage.default in {node.target for node in graph.graph.nodes}
    torch.testing.assert_close(graph(x), _stage(x))


def test_an_export_holds_the_operator_and_computes_the_same() -> None:
    class Network(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return _stage(x)

    x = _given().x.detach()
    program = torch.export.export(Network(), (x,))
    assert torch.ops.sepnet.stage.default in {node.target for node in program.graph.nodes}
    torch.testing.assert_close(program.module()(x), _stage(x))


@needs_kernels
@pytest.mark.parametrize("parts", PARTS)
def test_operations_are_counted_as_for_pytorchs_convolutions(parts: str) -> None:
    given = PARTS[parts]
    form = Form(padding=(1, 1), stride=(2, 1)) if given.depthwise is not None else Form()

    def count(compute: Callable[[Given, Form], Any]) -> tuple[int, int]:
        with FlopCounterMode(display=False) as counter:
            y = compute(given, form)[0]
            forward = counter.get_total_flops()
            y.sum().backward()
        return forward, counter.get_total_flops() - forward

    forward, backward = count(stage.stage)
    assert forward == count(stage.meaning)[0] > 0
    # Each multiplication once for the weights' gradient and once for the input's. PyTorch 2.13 counts a depthwise
    # layer's weight gradient as if its channels were not apart.
    assert backward == 2 * forward
    if given.depthwise is None:
        assert backward == count(stage.meaning)[1]


@needs_kernels
def test_operations_of_the_first_stage_leave_out_the_images_gradient() -> None:
    given = _given()._replace(coefficients=None, residual=None)
    given = given._replace(x=given.x.detach())
    with FlopCounterMode(display=False) as counter:
        y = stage.stage(given, SAME)[0]
        forward = counter.get_total_flops()
        y.sum().backward()
    positions = 2 * 6 * 4
    assert counter.get_total_flops() - forward == 2 * forward - 2 * positions * 5 * 9


@pytest.fixture
def _without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (stage, pooling, norm):
        monkeypatch.setattr(module, "native", lambda: None, raising=False)


def _everything(given: Given) -> list[Tensor]:
    """Return what a stage, a norm and a pool give one after the other, and all gradients."""
    leaves = [part for part in given if part is not None]
    y, sums, kept = stage.stage(given, SAME._replace(relu_out=True), with_sums=True, with_given=True)
    weight, bias = torch.full((7,), 1.5, requires_grad=True), torch.full((7,), 0.5, requires_grad=True)
    coefficients = norm.norm(sums, weight, bias, 48, 1e-3)
    z = pooling.pool(Given(y, coefficients), PoolForm((2, 2), True, RELU, 0.25, 9))
    total = (z * torch.arange(3 * 2).view(3, 2)).sum() + kept.sum()
    slopes = torch.autograd.grad(total, [*leaves, weight, bias])
    return [y, sums, kept, coefficients, z, *slopes]


@needs_kernels
def test_without_kernels_the_operators_compute_the_same(request: pytest.FixtureRequest) -> None:
    by_kernels = _everything(_given())
    request.getfixturevalue("_without_kernels")
    for own, plain in zip(by_kernels, _everything(_given()), strict=True):
        assert own.dtype == plain.dtype
        assert error(own.detach(), plain.detach()) < 1e-5


@pytest.mark.usefixtures("_without_kernels")
def test_the_fallbacks_gradients_are_those_of_finite_differences() -> None:
    exact = _given(torch.float64, numbers=torch.float64)

    def outputs(*parts: Tensor) -> Any:
        return stage.stage(Given(*parts), SAME, with_sums=True, with_given=True)

    parts: Any = tuple(exact)
    assert torch.autograd.gradcheck(outputs, parts)
    for average in (False, True):
        form = PoolForm((2, 3), average, RELU, 0.25, 9)
        assert torch.autograd.gradcheck(lambda *own, form=form: pooling.pool(Given(*own), form), parts[:3])


def test_an_operator_without_a_kernel_for_the_type_has_its_gradient() -> None:
    """Also while something looks on, as a compiler, an export or a counter does."""
    exact = _given(torch.float64, numbers=torch.float64)
    leaves: list[Any] = [*exact]
    for found, right in (
        (torch.ops.sepnet.stage(*exact, *SAME, False, False, True)[0], stage.meaning(exact, SAME)[0]),
        (torch.ops.sepnet.pool(*exact[:3], *PoolForm((2, 2))), pooling.meaning(exact, PoolForm((2, 2)))),
    ):
        with FlopCounterMode(display=False):
            by_operator = torch.autograd.grad(found.square().sum(), leaves, allow_unused=True)
        by_meaning = torch.autograd.grad(right.square().sum(), leaves, allow_unused=True)
        for own, expected in zip(by_operator, by_meaning, strict=True):
            torch.testing.assert_close(own, expected)


def test_float64_is_computed_in_float64() -> None:
    exact = _given(torch.float64, numbers=torch.float64)
    y, sums, _ = stage.stage(exact, SAME, with_sums=True)
    right = stage.meaning(exact, SAME)
    assert torch.equal(y, right[0])
    assert torch.equal(sums, right[1])
    assert torch.equal(pooling.pool(exact, PoolForm((2, 2))), pooling.meaning(exact, PoolForm((2, 2))))


@needs_kernels
@pytest.mark.parametrize("layout", ["contiguous", "channels last", "transposed", "every second", "one for all images"])
def test_any_memory_layout_is_taken(layout: str) -> None:
    given, x = _given(), _given().x.detach()
    lay: dict[str, Callable[[Tensor], Tensor]] = {
        "contiguous": Tensor.contiguous,
        "channels last": functools.partial(Tensor.contiguous, memory_format=torch.channels_last),
        "transposed": lambda t: t.transpose(2, 3).contiguous().transpose(2, 3),
        "every second": lambda t: t.repeat_interleave(2, 3)[..., ::2],
        "one for all images": lambda t: t[:1].expand(2, -1, -1, -1),
    }
    laid = lay[layout](x).requires_grad_()
    y = stage.stage(given._replace(x=laid), SAME)[0]
    right = stage.meaning(given._replace(x=laid), SAME)[0]
    assert error(y.detach(), right.detach()) < 1e-5
    slope = torch.randn(7, 2, 6, 4).transpose(0, 1)
    assert error(torch.autograd.grad(y, laid, slope)[0], torch.autograd.grad(right, laid, slope)[0]) < 1e-5


@needs_kernels
def test_a_second_derivative_is_refused_not_wrong() -> None:
    given = _given()
    y = stage.stage(given, SAME)[0]
    (slope,) = torch.autograd.grad(y.square().sum(), given.x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


def test_kernels_are_found_where_they_were_compiled() -> None:
    compiled = native()
    assert compiled is None or compiled.computes(torch.float32)
    assert compiled is None or not compiled.computes(torch.float16)
