"""The rows of a network: which operations make a row together, what it is, and its name."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
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
    """The steps of one call of a layer of ``torch.nn``, one other step, or a strict pair, whose rows are ``halves``.

    ``kind`` and ``name`` are what a table calls it.
    """

    steps: tuple[Step, ...]
    kind: str
    name: str = ""
    halves: tuple["Row", ...] = ()

    @property
    def last(self) -> Operation:
        """Its last operation, of the module called or the one whose ``forward`` called the operator."""
        return self.steps[-1].operation


def rows_of(steps: list[Step], pairs: Iterable[Pair]) -> list[Row]:
    """Return the rows in the order of execution, each with a name of its own: a layer called again gets ``#2``."""
    called = list(_called(steps))
    names = _numbered(_name(row, called) for row in called)
    rows = {row.last: replace(row, name=name) for row, name in zip(called, names, strict=True)}
    halves = [(rows[pair.depthwise], rows[pair.pointwise]) for pair in pairs if not pair.between]
    names = _numbered([_name_of_pair(pair, list(rows.values())) for pair in halves])
    for (depthwise, pointwise), name in zip(halves, names, strict=True):
        del rows[depthwise.last]
        rows[pointwise.last] = Row(depthwise.steps + pointwise.steps, "separable", name, (depthwise, pointwise))
    return list(rows.values())


def _called(steps: list[Step]) -> Iterator[Row]:
    """Yield the rows without their names."""
    for _, called in groupby(steps, key=lambda step: step.operation.call if step.operation.is_leaf else step):
        together = tuple(called)
        named = [step for step in together if step.kind]
        if len(named) > 1:
            convolutions = [str(step.kind) for step in named if step.is_convolution]
            layer = named[0].operation.module.rpartition(".")[2]
            yield Row(together, convolutions[0] if convolutions else COMPOSED.get(layer, layer))
        elif named and not _is_cut_further(named[0], steps):
            yield Row(together, str(named[0].kind))


def _is_cut_further(step: Step, steps: list[Step]) -> bool:
    """Say whether a slice is only the first half of one along two dimensions."""
    users = step.operation.results[0].users
    if step.kind != "slice" or len(users) != 1 or users[0].name != "slice":
        return False
    following = next(other for other in steps if other.operation is users[0])
    return following.kind == "slice" and users[0].call == step.operation.call


def _numbered(names: Iterable[str]) -> Iterator[str]:
    used: Counter[str] = Counter()
    for name in names:
        used[name] += 1
        yield name if used[name] == 1 else f"{name}#{used[name]}"


def _name(row: Row, rows: list[Row]) -> str:
    """Return the path of the layer, or of a module that does nothing else; else its path and the function."""
    path = row.last.path
    if row.last.is_leaf or (path and len(_within(path, rows)) == 1):
        return path or row.last.name
    function = row.kind if row.kind in ARITHMETIC else row.last.name
    return f"{path}.{function}" if path else function


def _name_of_pair(halves: tuple[Row, Row], rows: list[Row]) -> str:
    """Return the parent of both halves if it holds nothing else, else both names."""
    paths = {row.last.path.rpartition(".")[0] if row.last.is_leaf else row.last.path for row in halves}
    (parent, *others) = paths
    return parent if parent and not others and _within(parent, rows) == [*halves] else "+".join(r.name for r in halves)


def _within(path: str, rows: list[Row]) -> list[Row]:
    return [row for row in rows if f"{row.last.path}.".startswith(f"{path}.")]
