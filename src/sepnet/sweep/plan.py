"""A sweep's file: rows and a grid, and the trials that they make."""

import itertools
import json
import os
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sepnet.data import DATASETS
from sepnet.errors import SepnetError
from sepnet.networks import NETWORKS, join_name, split_name
from sepnet.recipes.recipe import Recipe, require_fields
from sepnet.settings import hint, read_toml, shown, to_settings
from sepnet.sweep.space import Search
from sepnet.training import experiment

DESIGN = "design-"
"""Begins the names of a search's designs."""
AXES = ("network", "recipe", "data", "parameters", "settings")
"""What a grid varies."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training: a row's design under one seed, in a run's folder of its own."""

    row: str
    seed: int
    network: str
    """With its arguments."""
    recipe: str | Recipe | None
    """As it was named; None is the network's own."""
    settings: dict
    data: str
    """Empty for a run that exists, whose data are read again."""
    device: str
    precision: str
    validation: str = "holdout"
    teachers: tuple[str, ...] = ()
    loggers: tuple[str, ...] = ()
    folder: str = ""
    """Of the run, where it is no sweep's."""

    @property
    def name(self) -> str:
        """The run's folder."""
        return self.folder or f"{self.row}-seed{self.seed}"

    @property
    def command(self) -> str:
        """The command line that trains the same alone."""
        words = ["sepnet", "train", self.network, "--data", self.data, "--validation", self.validation]
        words += [] if self.recipe is None else ["--recipe", str(self.recipe)]
        for key, value in self.settings.items():
            words += ["--set", f"{key}={value if isinstance(value, str) else json.dumps(value)}"]
        words += ["--teacher", ",".join(self.teachers)] if self.teachers else []
        for name in ("device", "precision"):
            words += [] if getattr(self, name) == "auto" else [f"--{name}", getattr(self, name)]
        return shlex.join([*words, "--seed", str(self.seed)])

    def resolve_recipe(self) -> Recipe:
        """Return the recipe with the trial's settings.

        Raises:
            SepnetError: no such recipe, an unknown field, or a value out of range.

        """
        return experiment.resolve_recipe(self.network, self.recipe, **self.settings)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A named change; what it does not name is as the sweep has it."""

    name: str
    group: str = ""
    """The question it belongs to: the table's section."""
    network: str | None = None
    """A row's own network takes none of the sweep's parameters."""
    parameters: dict = field(default_factory=dict)
    """Of the network: arguments and their values."""
    recipe: str | None = None
    settings: dict = field(default_factory=dict)
    """Fields of the recipe and their values."""
    data: str | None = None
    teachers: tuple[str, ...] | None = None
    seeds: tuple[int, ...] | None = None
    verdict: str = ""
    """What the person who ran it made of it."""

    def __post_init__(self) -> None:
        if Path(self.name).name != self.name or self.name in ("", "..") or not self.name.isprintable():
            raise SepnetError(f"name is {shown(self.name)}: expected that of a folder, printable and without '/'")
        require_fields(self.settings)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A sweep's file. Paths in it are seen from its folder."""

    title: str = ""
    text: str = ""
    """Both stand above the table."""
    network: str = "champion"
    parameters: dict = field(default_factory=dict)
    recipe: str | None = None
    settings: dict = field(default_factory=dict)
    data: str = "sample"
    validation: str = "holdout"
    """``test`` is for the proof of what was chosen before: rows alone, as nothing may be chosen by test images."""
    teachers: tuple[str, ...] = ()
    """Finished runs whose logits each network learns from."""
    seeds: tuple[int, ...] = (0,)
    device: str = "auto"
    precision: str = "auto"
    rules: str | None = None
    """What every design has to keep; one that does not is not trained."""
    row: tuple[Row, ...] = ()
    grid: dict = field(default_factory=dict)
    search: Search | None = None

    def __post_init__(self) -> None:
        require_fields(self.settings)
        experiment.require_validation(self.validation)
        if self.validation == "test" and (self.grid or self.search):
            raise SepnetError(
                "a [grid] and a [search] choose by their scores, which must be of held-out training images: leave "
                "validation out"
            )
        names = Counter(row.name for row in self.rows)
        for name, count in names.items():
            if count > 1:
                raise SepnetError(f"there are {count} rows '{name}': give each a name of its own")
        if not names and self.search is None:
            raise SepnetError("there is nothing to train: expected [[row]], [grid] or [search]")
        if self.search and (names or len(self.seeds) != 1):
            raise SepnetError("a [search] has no [[row]] and no [grid], and trains each design with one of the seeds")
        for seeds in (self.seeds, *(row.seeds for row in self.row if row.seeds is not None)):
            if not seeds or len(set(seeds)) < len(seeds):
                raise SepnetError(f"seeds are {list(seeds)}: expected at least one, each once")
            for seed in seeds:
                experiment.require_seed(seed)

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows of the file, then those of its grid."""
        return (*self.row, *_expand(self.grid))

    def trial(self, row: Row, seed: int) -> Trial:
        """Return a row's training under a seed."""
        parameters = row.parameters if row.network else {**self.parameters, **row.parameters}
        return Trial(
            row=row.name,
            seed=seed,
            network=join_name(row.network or self.network, parameters),
            recipe=row.recipe or self.recipe,
            settings={**self.settings, **row.settings},
            data=row.data or self.data,
            device=self.device,
            precision=self.precision,
            validation=self.validation,
            teachers=self.teachers if row.teachers is None else row.teachers,
        )

    @property
    def images(self) -> str:
        """What the scores are of, in words."""
        return "test" if self.validation == "test" else "held-out"

    def seeds_of(self, row: Row) -> tuple[int, ...]:
        """Return a row's seeds."""
        return self.seeds if row.seeds is None else row.seeds

    def trials(self) -> list[Trial]:
        """Return the trials of all rows: first seeds first, so that a first look at all rows comes early."""
        rows = [(row, self.seeds_of(row)) for row in self.rows]
        turns = range(max(len(seeds) for _, seeds in rows))
        return [self.trial(row, seeds[turn]) for turn in turns for row, seeds in rows if turn < len(seeds)]


def read_plan(file: Path) -> Plan:
    """Return the sweep of a TOML file.

    Raises:
        SepnetError: it cannot be read, a key is unknown, or a value is of another type or out of range.

    """
    values = read_toml(file, "sweep file")
    rows = values["row"] if isinstance(values.get("row"), list) else []
    tables = [table for table in (values, values.get("grid"), values.get("search"), *rows) if isinstance(table, dict)]
    for table in tables:
        table.update({key: _seen_from(file.parent, key, value) for key, value in table.items()})
    return to_settings(Plan, values, source=str(file))


def _seen_from(folder: Path, key: str, value: Any) -> Any:
    """Return a value of the file's, a path in it as it is from here."""
    if isinstance(value, list):
        return [_seen_from(folder, key, one) for one in value]
    if not isinstance(value, str):
        return value
    path = {
        "network": split_name(value).file.endswith(".py"),
        "recipe": value.endswith(".toml"),
        "rules": value.endswith(".toml"),
        "data": value not in DATASETS and (os.sep in value or (folder / value).exists()),
        "teachers": value not in NETWORKS,
    }
    return os.path.normpath(folder / value) if path.get(key) else value


def _expand(grid: Mapping[str, Any]) -> Iterator[Row]:
    """Yield a row for each combination of a grid's values."""
    if not grid:
        return
    axes = []
    for key, values in grid.items():
        if key not in AXES:
            raise SepnetError(f"grid: unknown key '{key}': {hint(key, AXES)}")
        inner = values if key in AXES[3:] else {key: values}
        if not isinstance(inner, dict):
            raise SepnetError(f"grid: {key} is {shown(inner)}: expected a table of names and lists")
        for name, choices in inner.items():
            if not isinstance(choices, list) or not choices:
                raise SepnetError(f"grid: {name} is {shown(choices)}: expected a list of values, at least one")
            axes.append([(key, name, value) for value in choices])
    for combination in itertools.product(*axes):
        fields: dict[str, Any] = {"parameters": {}, "settings": {}}
        for key, name, value in combination:
            if key in AXES[3:]:
                fields[key][name] = value
            else:
                fields[key] = value
        yield Row(name=",".join(f"{name}={_short(value)}" for _, name, value in combination), **fields)


def _short(value: Any) -> str:
    """Return a value as a part of a folder's name."""
    if isinstance(value, list):
        return "-".join(map(_short, value))
    return Path(str(value).rpartition(":")[2]).stem if isinstance(value, str) else str(value)
