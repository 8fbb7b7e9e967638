"""Settings from TOML files into frozen dataclasses, and the nearest name for a misspelt one."""

import tomllib
from collections.abc import Iterable
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from sepnet.errors import SepnetError

Settings = TypeVar("Settings")


def hint(name: str, choices: Iterable[str], *, otherwise: str | None = None) -> str:
    """Return what to say of an unknown name: the nearest choice, else ``otherwise`` or all choices."""
    choices = list(choices)
    near = get_close_matches(name, choices, n=1)
    return f"did you mean '{near[0]}'?" if near else otherwise or f"expected one of {', '.join(choices)}"


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """Return a TOML file's values; ``what`` says in errors what the file is.

    Raises:
        SepnetError: it cannot be read, or is not TOML.

    """
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise SepnetError(f"{what} '{path}' could not be read: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SepnetError(f"{what} '{path}' is not TOML: {error}") from error


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
