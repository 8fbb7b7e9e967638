"""Names for rows: the module's path where there is one, else the function beside the path of its caller."""

from collections import Counter

from torch import fx

from sepnet.anatomy.operations import ARITHMETIC
from sepnet.anatomy.pairs import Pair
from sepnet.anatomy.walk import Step


class Names:
    """The names of the steps that have rows, each used once: a layer called again gets ``#2``."""

    def __init__(self, steps: list[Step]) -> None:
        self._rows = [step for step in steps if step.kind is not None]
        self._used: Counter[str] = Counter()
        self._given: dict[fx.Node, str] = {}
        for step in self._rows:
            self._given[step.node] = self._once(self._plain(step))
        self._used.clear()

    def of(self, step: Step) -> str:
        """Return the name of a step: a module, a function, or one half of a pair."""
        return self._given[step.node]

    def of_pair(self, pair: Pair) -> str:
        """Return the parent of both halves if it holds nothing else, else both names."""
        parent = _owner(pair.depthwise)
        halves = {self._plain(pair.depthwise), self._plain(pair.pointwise)}
        inside = {self._plain(row) for row in self._within(parent)}
        if parent and parent == _owner(pair.pointwise) and inside == halves:
            return self._once(parent)
        return f"{self.of(pair.depthwise)}+{self.of(pair.pointwise)}"

    def _once(self, name: str) -> str:
        self._used[name] += 1
        return name if self._used[name] == 1 else f"{name}#{self._used[name]}"

    def _plain(self, step: Step) -> str:
        if step.node.op == "call_module" or (step.path and len(self._within(step.path)) == 1):
            return step.path
        function = step.kind if step.kind in ARITHMETIC else step.operation
        return f"{step.path}.{function}" if step.path else str(function)

    def _within(self, path: str) -> list[Step]:
        return [row for row in self._rows if f"{row.path}.".startswith(f"{path}.")]


def _owner(step: Step) -> str:
    return step.path.rpartition(".")[0] if step.node.op == "call_module" else step.path
