"""Settings from TOML files into frozen dataclasses, and the nearest name for a misspelt one."""

import math
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import fields
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
        raise SepnetError(f"{what} {error}") from error
    return parse_toml(text, f"{what} '{path}'")


def parse_toml(text: str, what: str) -> dict[str, Any]:
    """Return the values of TOML; ``what`` says in errors what the text is.

    Raises:
        SepnetError: it is not TOML, is nested too deeply, or holds an integer that Python does not parse.

    """
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise SepnetError(f"{what} is nested too deeply: expected a table of settings") from None
    except ValueError as error:  # a TOMLDecodeError, or an integer of more than 4,300 digits
        raise SepnetError(f"{what} is not TOML: {first_line(error)}") from error


MOST_VALUES = 2**28
"""Of one image: a GiB of float32."""
MOST_CLASSES = 10**6


def require_counts(*, image_shape: Any, classes: Any = 1) -> None:
    """Raise unless these are a shape ``(C, H, W)`` and a number of classes that a network may be made for."""
    numbers = image_shape if isinstance(image_shape, Sequence) else ()
    if len(numbers) != 3 or not all(isinstance(number, int) and number > 0 for number in numbers):
        raise SepnetError(f"image_shape is {image_shape!r}: expected (C, H, W), three whole numbers of at least 1")
    if math.prod(numbers) > MOST_VALUES:
        size = "×".join(map(str, numbers))
        raise SepnetError(f"an image {size} has {math.prod(numbers):,} values: expected at most {MOST_VALUES:,}")
    if not isinstance(classes, int) or not 1 <= classes <= MOST_CLASSES:
        raise SepnetError(f"classes is {classes!r}: expected a whole number from 1 to {MOST_CLASSES:,}")


def to_settings(kind: type[Settings], values: dict[str, Any], *, source: str) -> Settings:
    """Return a dataclass made from these values; ``source`` is named in errors.

    Raises:
        SepnetError: a key is unknown, or the dataclass refuses a value.

    """
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise SepnetError(f"{source}: unknown key '{key}': {hint(key, known)}")
    try:
        return kind(**values)
    except SepnetError as error:
        raise SepnetError(f"{source}: {error}") from None


def check_type(name: str, value: Any, annotation: Any) -> None:
    """Raise unless ``value`` fits a field's annotation.

    That is bool, int, float, str, ``tuple[str, ...]``, one of these or None, or a Literal of texts. A whole number
    will do for a float.
    """
    if get_origin(annotation) is Literal:
        choices = get_args(annotation)
        if value not in choices:
            raise SepnetError(f"{name} is {value!r}: expected {' or '.join(map(repr, choices))}")
        return
    optional = get_origin(annotation) is UnionType
    kinds = get_args(annotation) if optional else (annotation,)
    if not any(_fits(value, kind) for kind in kinds):
        words = " or ".join(WORDS[kind] for kind in kinds if kind is not NoneType)
        raise SepnetError(f"{name} is {value!r}: expected {words}")


def _fits(value: Any, kind: Any) -> bool:
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(isinstance(item, str) for item in value)
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    tuple[str, ...]: "a list of texts",
}
