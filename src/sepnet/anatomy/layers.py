"""The rows of a network: which operations make a row together, and its name."""

from collections import Counter
from dataclasses import dataclass
from itertools import groupby

from sepnet.anatomy.graph import Operation
from sepnet.anatomy.operators import ARITHMETIC, OPERATORS
from sepnet.anatomy.separable_pairs import Pair
from sepnet.anatomy.steps import Step

COMPOSED = {
    "Softsign": "softsign",
    "Tanhshrink": "tanhshrink",
    "LocalResponseNorm": "local response norm",
    **{f"LPPool{n}d": "power average pool" for n in (1, 2, 3)},
}
"""Layers of ``torch.nn`` that are made of several operators."""

KINDS = tuple(
    dict.fromkeys(
        [
            *("convolution", "depthwise", "pointwise", "separable", "grouped convolution"),
            *("adaptive max pool", "adaptive average pool", "global max pool", "global average pool"),
            *(operator.kind for operator in OPERATORS.values() if isinstance(operator.kind, str)),
            *("mean", "sum", "amax", "amin", "max", "min", "std", "var", "prod"),
            *("flatten", "slice", "relu6", "hard tanh", *COMPOSED.values(), *ARITHMETIC, "unused"),
        ]
    )
)
"""Every kind of layer that a row of an anatomy may name."""


@dataclass(frozen=True, eq=False)
class Row:
    """The steps of one call of a layer of ``torch.nn``, or one other step, and what a table calls it."""

    steps: tuple[Step, ...]
    kind: str

    @property
    def last(self) -> Operation:
        """Its last operation."""
        return self.steps[-1].operation

    @property
    def path(self) -> str:
        """The module called, or the one whose ``forward`` called the operator."""
        return self.last.path


def rows_of(steps: list[Step]) -> list[Row]:
    """Return the rows in the order of execution."""
    rows = []
    for _, called in groupby(steps, key=lambda step: step.operation.call if step.operation.is_leaf else step):
        together = tuple(called)
        named = [step for step in together if step.kind]
        if len(named) == 1 and not _is_cut_further(named[0], steps):
            rows.append(Row(together, str(named[0].kind)))
        elif len(named) > 1:
            rows.append(Row(together, _kind(named)))
    return rows


def _kind(named: list[Step]) -> str:
    convolutions = [str(step.kind) for step in named if step.is_convolution]
    layer = named[0].operation.module.rpartition(".")[2]
    return convolutions[0] if convolutions else COMPOSED.get(layer, layer)


def _is_cut_further(step: Step, steps: list[Step]) -> bool:
    """Say whether a slice is only the first half of one along two dimensions."""
    users = step.operation.results[0].users
    if step.kind != "slice" or len(users) != 1 or users[0].name != "slice":
        return False
    following = next(other for other in steps if other.operation is users[0])
    return following.kind == "slice" and users[0].call == step.operation.call


class Names:
    """The names of the rows, each used once: a layer called again gets ``#2``."""

    def __init__(self, rows: list[Row]) -> None:
        self._rows = rows
        self._used: Counter[str] = Counter()
        self._given = {step.operation: name for row in rows for name in [self._once(row)] for step in row.steps}
        self._used.clear()

    def of(self, op: Operation) -> str:
        """Return the name of the row to which an operation belongs, else where it is."""
        return self._given.get(op) or op.path or op.name

    def of_pair(self, pair: Pair) -> str:
        """Return the parent of both halves if it holds nothing else, else both names."""
        halves = [next(row for row in self._rows if row.last is half) for half in (pair.depthwise, pair.pointwise)]
        parents = {row.path.rpartition(".")[0] if row.last.is_leaf else row.path for row in halves}
        (parent, *others) = parents
        if parent and not others and self._within(parent) == halves:
            self._used[parent] += 1
            return parent if self._used[parent] == 1 else f"{parent}#{self._used[parent]}"
        return "+".join(self.of(row.last) for row in halves)

    def _once(self, row: Row) -> str:
        name = self._plain(row)
        self._used[name] += 1
        return name if self._used[name] == 1 else f"{name}#{self._used[name]}"

    def _plain(self, row: Row) -> str:
        path = row.path
        if row.last.is_leaf or (path and len(self._within(path)) == 1):
            return path
        function = row.kind if row.kind in ARITHMETIC else row.last.name
        return f"{path}.{function}" if path else function

    def _within(self, path: str) -> list[Row]:
        return [row for row in self._rows if f"{row.path}.".startswith(f"{path}.")]
