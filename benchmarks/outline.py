"""What the rows of a table of stages are: a network's steps, and the work of sepnet's kernels in each."""

import contextlib
import ctypes
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from sepnet.errors import SepnetError
from sepnet.kernels import accelerate, describe
from sepnet.kernels.accelerate import Accelerated
from sepnet.kernels.native import Native, Pool, Stage
from sepnet.kernels.plan import Activation, Add, Convolution, Norm, Other, Plan, Pooling, Same, Step, window
from sepnet.networks import build
from sepnet.training.inference import autocast

WAYS = ("forward", "backward")


@dataclass
class Row:
    """One row: its layers, the shapes of one image before and after them, and their least work for one image.

    The work of either way counts multiplications of ``products`` (pointwise layers) and of ``depthwise`` layers, and
    ``bytes`` of images; it is empty where no kernel of sepnet's computes the row.
    """

    title: str
    start: tuple[int, ...]
    end: tuple[int, ...]
    work: dict[str, Counter[str]] = field(default_factory=lambda: {way: Counter() for way in WAYS})


class Calls:
    """The calls of sepnet's kernels in a network's training, each of which is known to belong to a row.

    ``begin`` is told the row of each step of the network as its forward pass comes to it.
    """

    def __init__(self, plan: Plan, begin: Callable[[int], None] = lambda _: None) -> None:
        self._rows = {step.node: number for number, row in enumerate(rows_of(plan)) for step in row}
        self._begin = begin
        self._row = 0
        self._open: list[tuple[str, int]] = []
        plan.steps = _Told(plan.steps, self._come_to)

    def _come_to(self, step: Step) -> None:
        if step.node in self._rows:  # all but the images
            self._row = self._rows[step.node]
            self._begin(self._row)

    @contextlib.contextmanager
    def heard(
        self,
        hear: Callable[[str, int, ctypes.Structure, torch.dtype | None], contextlib.AbstractContextManager[object]],
    ) -> Iterator[None]:
        """Run each call within ``hear(way, row, arguments, dtype)``."""
        original = Native.call
        self._open.clear()

        def call(native: Native, function: str, arguments: ctypes.Structure, dtype: torch.dtype | None = None) -> None:
            kernel, way = function.split("_")
            with hear(way, self._place(kernel, way), arguments, dtype):
                original(native, function, arguments, dtype)

        with mock.patch.object(Native, "call", call):
            yield

    def _place(self, kernel: str, way: str) -> int:
        """Return the row of a call. Backward passes come in the reverse order of the forward ones."""
        if way == "forward":
            self._open.append((kernel, self._row))
            return self._row
        last = max(place for place, (name, _) in enumerate(self._open) if name == kernel)
        return self._open.pop(last)[1]


class _Told(list[Step]):
    """Steps that tell which of them is taken."""

    def __init__(self, steps: Sequence[Step], tell: Callable[[Step], None]) -> None:
        super().__init__(steps)
        self._tell = tell

    def __getitem__(self, index: Any) -> Any:
        step = super().__getitem__(index)
        self._tell(step)
        return step


def outline(network: str, *, image_shape: tuple[int, int, int], classes: int, precision: str) -> list[Row]:
    """Return the rows of a network's training.

    The last row is what follows the last stage, and the loss: PyTorch's own operators, whose work is not counted.

    Raises:
        SepnetError: there is no such network, or sepnet's kernels do not compute it here.

    """
    model = build(network, classes=classes, image_shape=image_shape).train()
    accelerated = accelerate(model)
    plan = plan_of(accelerated)
    if plan is None:
        raise SepnetError(f"network '{network}' has no stages to compare: it is computed by {describe(accelerated)}")
    images = torch.rand(2, *image_shape)
    ShapeProp(fx.GraphModule(model, plan.followed.graph)).propagate(images)
    rows = [
        Row(_title(row, plan.modules), _shape(nodes_of(row[0])[0].all_input_nodes[0]), _shape(row[-1].node))
        for row in rows_of(plan)[:-1]
    ]

    @contextlib.contextmanager
    def count(way: str, row: int, arguments: ctypes.Structure, dtype: torch.dtype | None) -> Iterator[None]:
        if row < len(rows) and dtype is not None:
            rows[row].work[way].update(work(arguments, way, dtype.itemsize))
        yield

    with Calls(plan).heard(count):
        with autocast(images.device, precision):
            logits = accelerated(images)
        logits.float().sum().backward()
    rest = [_name(step, plan.modules) for step in rows_of(plan)[-1] if step.node.op != "output"]
    return [*rows, Row(", ".join([*filter(None, rest), "loss"]), rows[-1].end, (classes,))]


def plan_of(network: object) -> Plan | None:
    """Return the steps of what :func:`sepnet.kernels.accelerate` made; None if it is the model itself."""
    return network.plan() if isinstance(network, Accelerated) else None


def rows_of(plan: Plan) -> list[list[Step]]:
    """Return the steps of each row: from one convolution or pooling layer to the next, and, last, the rest."""
    rows: list[list[Step]] = []
    for step in plan.steps:
        if step.node.op == "placeholder":
            continue
        if not rows or _begins(step, plan.modules):
            rows.append([])
        rows[-1].append(step)
    last = rows.pop()
    end = next(place for place, step in enumerate(last) if isinstance(step, Other))  # at the latest, the output
    return [*rows, *([last[:end]] if end else []), last[end:]]


def _begins(step: Step, modules: dict[str, nn.Module]) -> bool:
    match step:
        case Convolution():
            return True
        case Pooling(pool=pool):
            return pool is not None
        case Other(node=node) if node.op == "call_module":
            return isinstance(modules[str(node.target)], nn.Conv2d)
    return False


def nodes_of(step: Step) -> list[fx.Node]:
    """Return the nodes of the graph that a step computes, in order."""
    nodes = [step.node]
    if isinstance(step, Convolution | Pooling):
        while nodes[0].args[0] is not step.source:
            nodes.insert(0, nodes[0].args[0])  # type: ignore[arg-type]
    return nodes


def _shape(node: fx.Node) -> tuple[int, ...]:
    return tuple(node.meta["tensor_meta"].shape[1:])


def _title(row: Sequence[Step], modules: dict[str, nn.Module]) -> str:
    return ", ".join(filter(None, (_name(step, modules) for step in row)))


def _name(step: Step, modules: dict[str, nn.Module]) -> str:
    """Return a step's name in the field's words; of another module, its class."""
    match step:
        case Convolution():
            return _convolution(step)
        case Norm():
            return "batch norm"
        case Activation():
            return step.name
        case Same():
            return ""
        case Add():
            return "add"
        case Pooling(pool=pool, dropout=dropout):
            parts = ["dropout"] if dropout is not None else []
            if pool is not None:
                kind = "average" if isinstance(pool, nn.AvgPool2d) else "max"
                parts.insert(0, f"{kind} pool {'×'.join(map(str, window(pool)))}")
            return ", ".join(parts)
        case Other(node=node) if node.op == "call_module":
            return type(modules[str(node.target)]).__name__
    return getattr(step.node.target, "__name__", str(step.node.target))


def _convolution(step: Convolution) -> str:
    if step.depthwise is None:
        name = "pointwise"
    else:
        name = "separable" if step.pointwise is not None else "depthwise"
        name += f" {'×'.join(map(str, step.depthwise.kernel_size))}"
        if step.depthwise.stride != (1, 1):
            name += f" stride {'×'.join(map(str, step.depthwise.stride))}"
    return f"{name}, ReLU" if step.relu else name


def work(arguments: ctypes.Structure, way: str, size: int) -> dict[str, int]:
    """Return the least work of one call of a kernel for one image, whose numbers have ``size`` bytes.

    Of the bytes, each tensor counts once, if it must be read or is written; weights, of which all images share one
    set, do not count.
    """
    match arguments:
        case Stage():
            return _stage_work(arguments, way, size)
        case Pool():
            return {"bytes": size * _pool_numbers(arguments, way)}
    return {}


def _stage_work(s: Any, way: str, size: int) -> dict[str, int]:
    x, positions = s.height * s.width * s.channels, s.out_height * s.out_width
    y, middle = positions * s.out_channels, positions * s.channels
    depthwise = middle * s.kernel_rows * s.kernel_columns if s.depthwise else 0
    products = middle * s.out_channels if s.pointwise else 0
    read = x * (1 + bool(s.residual))
    if way == "forward":
        written = y + middle * bool(s.middle) + x * bool(s.given)
    else:
        to_input = any((s.grad_x, s.grad_residual, s.grad_coefficients))
        depthwise *= 1 + to_input
        products *= 1 + (to_input or bool(s.depthwise))
        needs_y = bool(s.relu_out or s.grad_sums)
        read += y * (bool(s.grad_y) + needs_y) + middle * bool(s.middle) + x * bool(s.grad_given)
        written = x * (bool(s.grad_x) + bool(s.grad_residual))
    return {"products": products, "depthwise": depthwise, "bytes": size * (read + written)}


def _pool_numbers(pool: Any, way: str) -> int:
    """Return how many numbers of one image a pooling call must read and write."""
    s = pool.stage
    x, y = s.height * s.width * s.channels, s.out_height * s.out_width * s.out_channels
    inputs = x * (1 + bool(s.residual))
    if way == "forward":
        return inputs + y
    largest = not pool.average and pool.window_rows * pool.window_columns > 1
    needs_input = largest or s.activation or s.coefficients
    return y + (inputs if needs_input else 0) + x * (bool(s.grad_x) + bool(s.grad_residual))
