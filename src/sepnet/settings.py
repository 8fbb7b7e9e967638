"""Values from TOML and JSON into dataclasses, checked field by field, and the nearest name for a misspelt one."""

import json
import math
import sys
import tomllib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin

from sepnet.errors import SepnetError, first_line
from sepnet.files import read_text

Settings = TypeVar("Settings")


def hint(name: str, choices: Iterable[str], *, otherwise: str | None = None) -> str:
    """Return what to say of an unknown name: the nearest choice, else ``otherwise`` or all choices."""
    choices = list(choices)
    longer = [choice for choice in choices if len(name) > 2 and choice.startswith(name)]
    near = longer or get_close_matches(name, choices, n=1)
    return f"did you mean '{near[0]}'?" if near else otherwise or f"expected one of {', '.join(choices)}"


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """Return a TOML file's values; ``what`` says in errors what the file is.

    Raises:
        SepnetError: it cannot be read, or is not TOML.

    """
    try:
        text = read_text(path)
    except SepnetError as error:
        raise SepnetError(f"{what} {error}") from None
    return parse_toml(text, f"{what} '{path}'")


def parse_toml(text: str, what: str) -> dict[str, Any]:
    """Return the values of TOML; ``what`` says in errors what the text is.

    Raises:
        SepnetError: it is not TOML, is nested too deeply, or holds an integer that Python does not parse.

    """
    values: dict[str, Any] = _parse(tomllib.loads, text, what, "TOML")
    return values


def parse_json(text: str, what: str) -> dict[str, Any]:
    """Return the values of a JSON object; ``what`` says in errors what the text is.

    Raises:
        SepnetError: it is not JSON, not an object, nested too deeply, or holds an integer that Python does not parse.

    """
    values = _parse(json.loads, text, what, "JSON")
    if not isinstance(values, dict):
        raise SepnetError(f"{what} is {shown(values)}: expected a JSON object")
    return values


def _parse(parse: Callable[[str], Any], text: str, what: str, form: str) -> Any:
    try:
        return parse(text)
    except RecursionError:
        raise SepnetError(f"{what} is nested too deeply: expected a table of settings") from None
    except ValueError as error:  # a decoder's, or of an integer of more than 4,300 digits
        raise SepnetError(f"{what} is not {form}: {first_line(error)}") from error


def shown(value: Any) -> str:
    """Return a value as an error message shows it: in one line, and not all of a long one."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a whole number of thousands of digits; lists in lists
        return "a value too long to show"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


LONGEST = 80
"""Characters of a value in an error message."""


MOST_VALUES = 2**28
"""Of one image: a GiB of float32."""
MOST_CLASSES = 10**6


def require_counts(*, image_shape: Any, classes: Any = 1) -> None:
    """Raise unless these are a shape ``(C, H, W)`` and a number of classes that a network may be made for."""
    numbers = image_shape if isinstance(image_shape, Sequence) else ()
    if len(numbers) != 3 or not all(isinstance(number, int) and number > 0 for number in numbers):
        raise SepnetError(f"image_shape is {shown(image_shape)}: expected (C, H, W), three whole numbers of at least 1")
    if math.prod(numbers) > MOST_VALUES:
        size = "×".join(map(str, numbers))
        raise SepnetError(f"an image {size} has {math.prod(numbers):,} values: expected at most {MOST_VALUES:,}")
    if not isinstance(classes, int) or not 1 <= classes <= MOST_CLASSES:
        raise SepnetError(f"classes is {shown(classes)}: expected a whole number from 1 to {MOST_CLASSES:,}")


def to_settings(kind: type[Settings], values: Any, *, source: str) -> Settings:
    """Return a dataclass made from plain values; ``source`` is named in errors.

    Lists become tuples, and tables the dataclasses that the fields are annotated with.

    Raises:
        SepnetError: a key is unknown or missing, a value is of another type, or the dataclass refuses it.

    """
    if not isinstance(values, dict):
        raise SepnetError(f"{source} is {shown(values)}: expected a table of names and values")
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise SepnetError(f"{source}: unknown key '{key}': {hint(str(key), known)}")
    made = {}
    for name, field in known.items():
        if name in values:
            made[name] = _to_field(f"{source}: {name}", values[name], field.type)
        elif field.default is MISSING and field.default_factory is MISSING:
            raise SepnetError(f"{source} has no '{name}'")
    try:
        return kind(**made)
    except SepnetError as error:
        raise SepnetError(f"{source}: {error}") from None


def _to_field(name: str, value: Any, annotation: Any) -> Any:
    """Return a plain value as a field of that annotation holds it, checked."""
    if get_origin(annotation) is UnionType and isinstance(value, list | dict):
        annotation = next(kind for kind in get_args(annotation) if kind is not NoneType)
    if is_dataclass(annotation):
        return value if isinstance(value, annotation) else to_settings(annotation, value, source=name)  # type: ignore[arg-type]
    kind = get_origin(annotation)
    if kind in (tuple, list) and isinstance(value, list | tuple):
        item = get_args(annotation)[0]
        if is_dataclass(item):
            return kind(_to_field(f"{name}[{place}]", one, item) for place, one in enumerate(value))
        value = kind(value)
    check_type(name, value, annotation)
    return value


def check_type(name: str, value: Any, annotation: Any) -> None:
    """Raise unless ``value`` fits a field's annotation.

    That is bool, int, float, str, a tuple of these, one of these or None, or a Literal of texts. A whole number will
    do for a float, which must be finite.
    """
    if get_origin(annotation) is Literal:
        choices = get_args(annotation)
        if not (isinstance(value, str) and value in choices):
            raise SepnetError(f"{name} is {shown(value)}: expected {' or '.join(map(repr, choices))}")
        return
    kinds = get_args(annotation) if get_origin(annotation) is UnionType else (annotation,)
    if not any(_fits(value, kind) for kind in kinds):
        words = " or ".join(_in_words(kind) for kind in kinds if kind is not NoneType)
        raise SepnetError(f"{name} is {shown(value)}: expected {words}")


def _fits(value: Any, kind: Any) -> bool:
    if get_origin(kind) is tuple:
        items = get_args(kind)
        if not isinstance(value, tuple):
            return False
        items = items[:1] * len(value) if items[-1] is ... else items
        return len(items) == len(value) and all(map(_fits, value, items))
    if isinstance(value, bool):
        return kind is bool
    if kind is float:
        return isinstance(value, int | float) and abs(value) <= sys.float_info.max
    return isinstance(value, kind)


def _in_words(kind: Any) -> str:
    if get_origin(kind) is not tuple:
        return f"a {WORDS[kind]}" if kind is not bool else WORDS[kind]
    item, *rest = get_args(kind)
    return f"a list of {WORDS[item]}s" if rest == [...] else f"{1 + len(rest)} {WORDS[item]}s"


WORDS = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    list: "list",
    dict: "table",
}
