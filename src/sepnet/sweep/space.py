"""The space of a search: what each argument of a network and each field of a recipe may be."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sepnet.errors import SepnetError
from sepnet.recipes.recipe import require_fields
from sepnet.settings import hint, shown, to_settings

OBJECTIVES: dict[str, Literal["maximize", "minimize"]] = {
    "accuracy": "maximize",
    "loss": "minimize",
    "parameters": "minimize",
    "macs": "minimize",
    "seconds": "minimize",
}


@dataclass(frozen=True, kw_only=True)
class Range:
    """Numbers from ``low`` to ``high``, both included; whole ones where all that is given is whole."""

    low: float
    high: float
    step: float | None = None
    log: bool = False
    """Drawn evenly by their logarithms."""

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise SepnetError(f"low is {self.low} and high {self.high}: expected high at least as large")
        if self.log and (self.low <= 0 or self.step is not None):
            raise SepnetError("log is for numbers above 0 without a step")
        if self.step is not None and self.step <= 0:
            raise SepnetError(f"step is {self.step}: expected a number above 0")

    @property
    def whole(self) -> bool:
        """Whether its numbers are whole."""
        return all(isinstance(value, int) for value in (self.low, self.high, self.step or 1))


Choices = tuple[str, ...]
"""Values as JSON, one of which is taken."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """What is searched, for what, and for how long."""

    trials: int | None = None
    """Designs to train; one that breaks the rules is none."""
    epochs: int | None = None
    """Of all trials together, after which no design is begun."""
    objectives: tuple[str, ...] = ("accuracy",)
    """One, or several for a front."""
    rungs: tuple[int, ...] = ()
    """Epochs after which only the best go on."""
    keep: float = 0.25
    """The share that goes on, of those that have come so far."""
    sampler: Literal["tpe", "random"] = "tpe"
    """Optuna's: ``tpe`` learns from what was tried. (Bergstra et al. 2011.)"""
    seed: int = 0
    """Of the sampler."""
    parameters: dict = field(default_factory=dict)
    """Of the network, by argument."""
    settings: dict = field(default_factory=dict)
    """Of the recipe, by field."""

    def __post_init__(self) -> None:
        require_fields(self.settings)
        if self.trials is None and self.epochs is None:
            raise SepnetError("expected trials, epochs or both: how long to search")
        for name in ("trials", "epochs"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SepnetError(f"{name} is {value}: expected a whole number of at least 1")
        for name in self.objectives:
            if name not in OBJECTIVES:
                raise SepnetError(f"objectives have '{name}': {hint(name, OBJECTIVES)}")
        if not self.objectives:
            raise SepnetError("objectives are empty: expected at least one")
        if any(rung < 1 for rung in self.rungs) or list(self.rungs) != sorted(set(self.rungs)):
            raise SepnetError(f"rungs are {list(self.rungs)}: expected numbers of epochs that grow, from 1")
        if not 0 < self.keep < 1:
            raise SepnetError(f"keep is {self.keep}: expected a share between 0 and 1")
        if not self.dimensions():
            raise SepnetError("the space is empty: expected [search.parameters], [search.settings] or both")

    def dimensions(self) -> dict[str, Range | Choices]:
        """Return what is drawn, by its name: an argument or field, with a number where it is one part of a list."""
        found: dict[str, Range | Choices] = {}
        for table in (self.parameters, self.settings):
            for name, value in table.items():
                for part, one in _parts(name, value):
                    if part in found:
                        raise SepnetError(f"'{name}' is an argument and a field: only one of them can be searched")
                    found[part] = _dimension(part, one)
        return found

    def design(self, drawn: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the arguments and the fields that were drawn, by the names of :meth:`dimensions`."""
        dimensions = self.dimensions()

        def value(part: str) -> Any:
            return drawn[part] if isinstance(dimensions[part], Range) else json.loads(drawn[part])

        def values(table: Mapping[str, Any]) -> dict[str, Any]:
            return {
                name: [value(part) for part, _ in _parts(name, one)] if _is_vector(one) else value(name)
                for name, one in table.items()
            }

        return values(self.parameters), values(self.settings)


def _is_vector(value: Any) -> bool:
    """Whether a value is a list of ranges, a number from each."""
    return isinstance(value, list) and any(isinstance(one, dict) for one in value)


def _parts(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if _is_vector(value):
        yield from ((f"{name}.{place}", one) for place, one in enumerate(value))
    else:
        yield name, value


def _dimension(name: str, value: Any) -> Range | Choices:
    if isinstance(value, dict):
        return to_settings(Range, value, source=name)
    if not isinstance(value, list) or not value:
        raise SepnetError(f"{name} is {shown(value)}: expected a list of values, or {{ low = …, high = … }}")
    return tuple(json.dumps(one) for one in value)
