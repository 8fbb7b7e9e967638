"""Kinds of damage to a run's folder, each drawn from a generator."""

import json
import os
import random
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tomli_w
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from sepnet.runs.run import FILES, HISTORY
from tests.faults.scene import BROKEN_OFF, FINISHED

NASTY: list[Any] = [-1, 0, 1, 10**30, 1e-320, 1e300, float("nan"), float("inf"), True, None]
NASTY += ["", "x", "\x1b[2J", "/dev/zero", "9" * 5000, [], [1, 2], [[]], {}, {"a": 1}]


class Mutation:
    """One damage: of a run's folder ``run`` in a scene's folder; ``said`` names what was done."""

    def __init__(self, scene: Path, run: Path, name: str, draw: random.Random) -> None:
        self.scene, self.run, self.name, self.draw = scene, run, name, draw
        self.files = sorted(path for path in run.iterdir() if path.is_file() and path.name != ".lock")
        self.file = draw.choice(self.files)
        self.said = self.file.name
        self.outside = scene / "outside"
        shutil.rmtree(self.outside, ignore_errors=True)
        self.outside.mkdir()

    def choose(self, suffix: str) -> Path:
        """Damage a file with this ending."""
        self.file = self.draw.choice([file for file in self.files if file.name.endswith(suffix)])
        self.said = self.file.name
        return self.file

    def outsiders(self) -> dict[str, bytes]:
        """Return all that lies outside the run, which nothing may change."""
        return {path.name: path.read_bytes() for path in self.outside.iterdir()}

    def flip(self) -> None:
        """Flip one bit."""
        content = bytearray(self.file.read_bytes())
        place = self.draw.randrange(8 * len(content))
        content[place // 8] ^= 1 << place % 8
        self.file.write_bytes(content)
        self.said += f", bit {place}"

    def truncate(self) -> None:
        """Cut a file off, at times to nothing."""
        content = self.file.read_bytes()
        length = self.draw.choice([0, self.draw.randrange(len(content))])
        self.file.write_bytes(content[:length])

    def remove(self) -> None:
        """Remove a file."""
        self.file.unlink()

    def swap(self) -> None:
        """Put the same file of another run, or of the same run at another moment, in its place."""
        names = ["other", "earlier", BROKEN_OFF, FINISHED]
        found = [self.scene / name / self.file.name for name in names if name != self.name]
        source = self.draw.choice([file for file in found if file.is_file()] or [self.file])
        self.file.write_bytes(source.read_bytes())
        self.said += f" of {source.parent.name}"

    def edit_history(self) -> None:
        """Change a cell, or remove, repeat or exchange rows."""
        file = self.choose(HISTORY)
        rows = [line.split(",") for line in file.read_text().splitlines()]
        how, place = self.draw.randrange(4), self.draw.randrange(1, len(rows))
        if how == 0:
            rows.pop(place)
        elif how == 1:
            rows.append(rows[place])
        elif how == 2:
            rows.reverse()
        else:
            cell = self.draw.randrange(len(rows[place]))
            values = ["0", "-1", "nan", "inf", "1e400", "", "0.5", "9" * 5000, '"', "x", "2"]
            rows[place][cell] = self.draw.choice(values)
        file.write_text("".join(",".join(row) + "\n" for row in rows))

    def edit_json(self) -> None:
        """Change a value somewhere in a JSON file."""
        file = self.choose(".json")
        values = json.loads(file.read_text())
        _change_somewhere(values, self.draw)
        file.write_text(json.dumps(values))

    def edit_config(self) -> None:
        """Change a field of the configuration."""
        file = self.choose(".toml")
        values = tomllib.loads(file.read_text())
        nasty = [value for value in NASTY if value is not None]
        _change_somewhere(values, self.draw, nasty)
        file.write_text(tomli_w.dumps(values))

    def edit_text(self) -> None:
        """Change a digit of a text file, or add a line."""
        file = self.draw.choice([file for file in self.files if file.suffix != ".safetensors"])
        text = file.read_text()
        digits = [place for place, letter in enumerate(text) if letter.isdigit()]
        place = self.draw.choice(digits)
        text = text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :]
        file.write_text(self.draw.choice([text, text + "1\n", "\ufeff" + text, "[" * 3000]))
        self.said = file.name

    def edit_tensors(self) -> None:
        """Remove, add, cast, scale or exchange tensors, and write the file as before otherwise."""
        file = self.choose(".safetensors")
        with safe_open(file, "pt") as opened:
            metadata = opened.metadata()
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        name = self.draw.choice(sorted(tensors))
        how = self.draw.choice(["remove", "optimizer", "add", "half", "int", "nan", "one-hot", "shape", "text"])
        if how == "remove":
            del tensors[name]
        elif how == "optimizer":
            tensors = {key: value for key, value in tensors.items() if not key.startswith("optimizer")}
            tensors = tensors or {"x": torch.zeros(1)}
        elif how == "add":
            tensors["more"] = torch.zeros(2)
        elif how in ("half", "int"):
            tensors[name] = tensors[name].to(torch.float16 if how == "half" else torch.int32)
        elif how == "nan":
            tensors[name] = (
                torch.full_like(tensors[name], float("nan")) if tensors[name].is_floating_point() else -tensors[name]
            )
        elif how == "one-hot" and "labels" in tensors:
            tensors["logits"] = torch.nn.functional.one_hot(tensors["labels"], 10).float()
        elif how == "text":
            key = next(iter(metadata))
            metadata = {key: metadata[key].replace("1", "2")}
        else:
            tensors[name] = tensors[name].reshape(-1)[:1].clone()
        save_file(tensors, file, metadata)
        self.said += f": {how} {name}"

    def pipe(self) -> None:
        """Put a named pipe in place of a file."""
        self.file.unlink()
        os.mkfifo(self.file)

    def folder(self) -> None:
        """Put a folder in place of a file."""
        self.file.unlink()
        self.file.mkdir()

    def link(self) -> None:
        """Put a link in place of a file: to its copy outside, to nothing, or to a device."""
        copy = self.outside / self.file.name
        copy.write_bytes(self.file.read_bytes())
        self.file.unlink()
        self.file.symlink_to(self.draw.choice([copy, copy, self.scene / "nowhere", Path("/dev/zero")]))

    def obstruct(self) -> None:
        """Put a pipe, a link or a folder under the name of the lock or of a partial file."""
        names = [".lock", *(f"{file}.partial" for file in FILES), "report", ".history.csv-0123456789abcdef.partial"]
        place = self.run / self.draw.choice(names)
        place.unlink(missing_ok=True)
        how = self.draw.randrange(3)
        if how == 0:
            os.mkfifo(place)
        elif how == 1:
            (self.outside / "theirs").write_text("theirs")
            place.symlink_to(self.outside / "theirs")
        else:
            place.mkdir()
        self.said = f"{('pipe', 'link', 'folder')[how]} as {place.name}"


KINDS: dict[str, Callable[[Mutation], None]] = {
    "one bit flipped": Mutation.flip,
    "cut off": Mutation.truncate,
    "removed": Mutation.remove,
    "of another run or moment": Mutation.swap,
    "rows of the history": Mutation.edit_history,
    "values of JSON": Mutation.edit_json,
    "fields of the configuration": Mutation.edit_config,
    "text edited": Mutation.edit_text,
    "tensors edited": Mutation.edit_tensors,
    "a pipe in its place": Mutation.pipe,
    "a folder in its place": Mutation.folder,
    "a link in its place": Mutation.link,
    "pipes, links as lock or partial": Mutation.obstruct,
}


def _change_somewhere(values: Any, draw: random.Random, nasty: list[Any] | None = None) -> None:
    """Replace one value, at any depth, by a nasty one; remove it; or add one beside it."""
    while True:
        keys = list(values) if isinstance(values, dict) else list(range(len(values)))
        key = draw.choice(keys)
        if isinstance(values[key], dict | list) and values[key] and draw.random() < 0.8:
            values = values[key]
            continue
        how = draw.random()
        if how < 0.1:
            del values[key]
        elif how < 0.2 and isinstance(values, dict):
            values["unknown"] = 1
        elif how < 0.4 and isinstance(values[key], int | float):
            values[key] = values[key] + 1
        else:
            values[key] = draw.choice(nasty or NASTY)
        return
