"""The seal of a folder: the SHA-256 of each of its files, written when they are all there."""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from sepnet.errors import SepnetError
from sepnet.files import exists, read_file, read_text, write_atomically
from sepnet.settings import parse_json, shown, to_settings

MANIFEST = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What the file holds: the SHA-256 of each file by its name."""

    files: dict

    def __post_init__(self) -> None:
        for name, digest in self.files.items():
            if not (isinstance(digest, str) and len(digest) == 64):
                raise SepnetError(f"the SHA-256 of '{name}' is {shown(digest)}: expected 64 hexadecimal digits")


def write_manifest(folder: Path, names: Collection[str], *, more: Mapping[str, bytes] | None = None) -> None:
    """Seal those of the named files that are in the folder, and ``more``, contents of files that are about to be."""
    contents = {name: read_file(folder / name, follow_links=False) for name in names if exists(folder / name)}
    contents |= more or {}
    files = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    write_atomically(folder / MANIFEST, json.dumps({"files": files}, indent=2) + "\n")


def verify_manifest(folder: Path, names: Collection[str], *, optional: Collection[str]) -> None:
    """Raise unless the folder's files are those that were sealed; an ``optional`` one may have gone since.

    Raises:
        SepnetError: a file is missing, has changed or is one too many; it is named.

    """
    file = folder / MANIFEST
    advice = "restore it from a copy, or train the run again"
    manifest = to_settings(Manifest, parse_json(read_text(file, follow_links=False), f"'{file}'"), source=f"'{file}'")
    for name in manifest.files:
        if name not in names:
            raise SepnetError(f"'{file}' names '{name}', which is not a file of a run: {advice}")
    for name in names:
        there, sealed = exists(folder / name), manifest.files.get(name)
        if there and sealed is None:
            raise SepnetError(f"'{folder / name}' was not there when the run was finished: remove it")
        if sealed is not None and not there and name not in optional:
            raise SepnetError(f"'{folder / name}' is missing, which the finished run had: {advice}")
        if there and hashlib.sha256(read_file(folder / name, follow_links=False)).hexdigest() != sealed:
            raise SepnetError(f"'{folder / name}' has changed since the run was finished: {advice}")
